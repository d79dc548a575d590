"""`headswap diff`, on a history whose locks, metrics and objects of DVC's cache the tests write."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.lock import LockError
from ruamel.yaml import YAML

from pipeline.cli import main
from pipeline.commands import diff
from pipeline.core import locks, params
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.evaluation.scoring.metrics import METRICS
from pipeline.lineage.diff.revisions import Revision
from tests.conftest import REPOSITORY, Project


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def images() -> dict[str, list[str]]:
    """Return id -> bytes, label and split."""
    return {f"{number:02}.png": [f"bytes {number}", "red", "test" if number < 4 else "train"] for number in range(20)}


@dataclass
class State:
    """What a run of two heads was made of, and what came out."""

    objects: Path
    images: dict[str, list[str]] = field(default_factory=images)
    recipe: dict[str, Any] = field(default_factory=lambda: {"dtype": "float16", "image_size": 32})
    heads: dict[str, Any] = field(default_factory=lambda: {"logreg": {"C": [0.1, 1]}, "knn": {"n_neighbors": 3}})
    listed: list[str] = field(default_factory=lambda: ["logreg", "knn"])
    compare: dict[str, Any] = field(default_factory=lambda: {"decision": "most_probable", "margin": 0.01, "costs": {}})
    metric: str = "accuracy"
    code: str = "first"
    libraries: dict[str, str] = field(default_factory=lambda: {"numpy": "2.0"})
    validation: dict[str, float] = field(default_factory=lambda: {"logreg": 0.8, "knn": 0.7})
    test: dict[str, float] = field(default_factory=lambda: {"logreg": 0.75, "knn": 0.65})
    noise: str = ""
    """What the network's numbers depend on, and nobody recorded."""

    def commit(self, tag: str) -> None:
        self.write()
        git("add", "dvc.lock", "metrics", "reports/scores.json")
        git("commit", "--allow-empty", "-m", tag)
        git("tag", tag)

    def write(self) -> None:
        """Do what `dvc repro` would."""
        listed, stamp = self.manifest(), json.dumps({"facts": {"recipe": self.recipe, "skipped": {}}}).encode()
        made = [("data/manifest.parquet", self.store(listed))]
        raw = ("data/raw", md5_of(listed) + ".dir")
        matrix = [("data/embeddings/tiny.h5", md5_of(listed + stamp + self.noise.encode())),
                  ("data/embeddings/tiny.json", self.store(stamp))]  # fmt: skip
        stages = {
            "prepare": self.stage([raw], {"seed": 0}, made),
            "embed@tiny": self.stage(made, {"embed": {"dtype": self.recipe["dtype"]}}, matrix),
            **{f"train@tiny-{head}": self.train(head, [*made, *matrix]) for head in self.heads},
        }
        runs = {f"tiny/{head}": self.test[head] for head in self.listed}
        asked = {"run": {"backbones": ["tiny"], "heads": self.listed, "plans": []}, "compare": self.compare}
        predicted = [out for head in self.listed for out in stages[f"train@tiny-{head}"]["outs"]]
        verdict = [
            ("reports/verdict.json", self.store(b'{"answer": "cannot tell", "results": []}')),
            self.file("reports/scores.json", {"test": runs}),
        ]
        stages["compare"] = self.stage(
            [(out["path"], out["md5"]) for out in predicted], {**asked, "selection.metric": self.metric}, verdict
        )
        with Path("dvc.lock").open("w") as stream:
            YAML(typ="safe").dump({"schema": "2.0", "stages": stages}, stream)

    def train(self, head: str, deps: Sequence[tuple[str, str]]) -> dict[str, Any]:
        run = self.store(json.dumps({"facts": {"made_with": {"libraries": self.libraries}}}).encode())
        folder = self.store(json.dumps([{"md5": run, "relpath": "run.json"}]).encode(), ".dir")
        predicted = md5_of(json.dumps([self.validation.get(head), str(deps), self.heads[head]]).encode())
        outs = [(f"models/tiny/{head}", folder), (f"predictions/tiny/{head}.parquet", predicted)]
        if head in self.listed:
            outs.append(self.file(f"metrics/tiny/{head}.json", {"validation": {self.metric: self.validation[head]}}))
        code = ("pipeline/heads", md5_of(self.code.encode()))
        settings = {f"heads.{head}": self.heads[head], "selection": {"metric": self.metric}}
        return self.stage([*deps, code], settings, outs)

    def stage(
        self, deps: Sequence[tuple[str, str]], settings: dict[str, Any], outs: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        def listed(some: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
            return [{"path": path, "hash": "md5", "md5": md5, "size": 1} for path, md5 in some]

        return {"cmd": "headswap", "deps": listed(deps), "params": {"params.yaml": settings}, "outs": listed(outs)}

    def manifest(self) -> bytes:
        columns: dict[str, list[str | None]] = {name: [] for name in manifest.COLUMNS}
        for image_id, (content, label, split) in sorted(self.images.items()):
            sha256 = hashlib.sha256(content.encode()).hexdigest()
            row = (image_id, f"data/raw/{image_id}", sha256, label, None, split)
            for name, value in zip(manifest.COLUMNS, row, strict=True):
                columns[name].append(value)
        buffer = BytesIO()
        pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), buffer)
        return buffer.getvalue()

    def store(self, content: bytes, suffix: str = "") -> str:
        md5 = md5_of(content)
        path = self.objects / md5[:2] / f"{md5[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5 + suffix

    def file(self, path: str, content: object) -> tuple[str, str]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content))
        return path, md5_of(Path(path).read_bytes())


@pytest.fixture
def state(project: Project, monkeypatch: pytest.MonkeyPatch) -> State:
    """Commit a first state, tagged `before`."""
    objects = project.root / "objects"
    monkeypatch.setattr(locks, "objects_of", lambda root: objects)
    git("init")
    made = State(objects)
    made.commit("before")
    return made


def told(state: State) -> str:
    """Commit a state, and return what changed since the first."""
    state.commit("after")
    return diff.main(params.load(), ["before", "after"])


def section(text: str, heading: str) -> list[str]:
    lines = text.splitlines()
    start = lines.index(heading) + 1
    return lines[start : lines.index("", start) if "" in lines[start:] else None]


class TestImages:
    def test_every_kind_of_change_is_counted_with_an_example(self, state: State) -> None:
        state.images["new.png"] = ["bytes new", "red", "train"]
        del state.images["19.png"]
        state.images["18.png"][1] = "blue"
        state.images["17.png"][2] = "test"
        state.images["16.png"][0] = "other"
        state.images["blue/15.png"] = [state.images.pop("15.png")[0], "blue", "train"]
        assert section(told(state), "Images") == [
            "  20 images",
            "  1 added: new.png",
            "  1 removed: 19.png",
            "  1 renamed: 15.png -> blue/15.png",
            "  1 with other bytes: 16.png",
            "  2 relabelled: 18.png: red -> blue, blue/15.png: red -> blue",
            "  1 moved between splits: 17.png: train -> test",
            "  the test images are not the same (4 -> 5): test scores are of different images",
        ]

    def test_at_most_five_are_named(self, state: State) -> None:
        state.images |= {f"new{number}.png": [f"new {number}", "red", "train"] for number in range(7)}
        assert section(told(state), "Images") == [
            "  20 -> 27 images",
            "  7 added: new0.png, new1.png, new2.png, new3.png, new4.png, ...",
        ]

    def test_what_may_have_been_renamed_in_two_ways_is_not_guessed(self, state: State) -> None:
        state.images["18.png"][0] = state.images["19.png"][0]
        state.commit("twins")
        del state.images["18.png"], state.images["19.png"]
        state.images["new.png"] = ["bytes 19", "red", "train"]
        state.commit("after")
        found = section(diff.main(params.load(), ["twins", "after"]), "Images")
        assert found[1:] == ["  1 added: new.png", "  2 removed: 18.png, 19.png"]
        found = section(diff.main(params.load(), ["after", "twins"]), "Images")
        assert found[1:] == ["  2 added: 18.png, 19.png", "  1 removed: new.png"]


class TestSettings:
    def test_a_recipe_is_compared_key_by_key(self, state: State) -> None:
        state.recipe |= {"dtype": "float32", "crop": 0.9}
        assert section(told(state), "Recipe") == [
            "  tiny: crop: not set -> 0.9",
            '  tiny: dtype: "float16" -> "float32"',
        ]

    def test_heads_come_and_go(self, state: State) -> None:
        state.heads["lda"] = {}
        state.listed = ["logreg", "lda"]  # the lock still has knn
        state.validation["lda"], state.test["lda"] = 0.9, 0.85
        text = told(state)
        assert section(text, "Heads and plans") == ["  added: tiny/lda", "  removed: tiny/knn"]
        rows = [line.split() for line in section(text, "Results")]
        assert ["tiny/lda", "added:", "90.00%", "added:", "85.00%"] in rows
        assert ["tiny/knn", "removed:", "70.00%", "removed:", "65.00%"] in rows

    def test_a_heads_setting_moves_its_result_alone(self, state: State) -> None:
        state.heads["logreg"]["C"] = [0.01]
        state.validation["logreg"], state.test["logreg"] = 0.82, 0.74
        text = told(state)
        assert section(text, "Heads and plans") == ["  heads.logreg.C: [0.1, 1] -> [0.01]"]
        results = "\n".join(section(text, "Results"))
        assert "80.00% -> 82.00% (+2.00 points)" in results
        assert "75.00% -> 74.00% (-1.00 points)" in results
        assert "70.00%, the same" in results
        assert section(text, "Why") == [
            "  tiny/logreg: validation and test moved, because of:",
            "    heads.logreg.C: [0.1, 1] -> [0.01]",
        ]

    def test_another_metric_to_choose_by_is_said(self, state: State) -> None:
        state.metric = "macro_f1"
        text = told(state)
        assert "  accuracy decided before, macro_f1 after, which is what is shown" in section(text, "Results")
        assert "validation macro f1" in text
        assert '  selection.metric: "accuracy" -> "macro_f1"' in section(text, "Other settings")


class TestWhy:
    def test_new_images_are_found_behind_every_stage_between(self, state: State) -> None:
        state.images["new.png"] = ["bytes new", "red", "train"]
        state.validation = {"logreg": 0.81, "knn": 0.71}
        assert section(told(state), "Why") == [
            "  tiny/logreg, tiny/knn: validation moved, because of:",
            "    data/raw: 1 added (new.png)",
        ]

    def test_several_causes_are_not_told_apart(self, state: State) -> None:
        state.code, state.recipe["dtype"], state.validation["knn"] = "second", "float32", 0.72
        found = section(told(state), "Why")
        start = found.index("  tiny/knn: validation moved, because of one or more of:")
        assert found[start + 1 : start + 3] == [
            '    embed.dtype: "float16" -> "float32"',
            "    code: pipeline/heads",
        ]

    def test_a_result_that_stayed_although_code_changed_is_said(self, state: State) -> None:
        state.code = "second"
        text = told(state)
        assert section(text, "Code") == ["  1 changed: pipeline/heads"]
        assert section(text, "Why") == [
            "  tiny/logreg, tiny/knn: validation and test stayed the same, although there changed:",
            "    code: pipeline/heads",
        ]

    def test_a_rule_of_decision_moves_the_test_score_only(self, state: State) -> None:
        state.compare["decision"], state.compare["margin"], state.test["knn"] = "threshold", 0.02, 0.66
        assert section(told(state), "Why") == [
            "  tiny/knn: test moved, because of:",
            '    compare.decision: "most_probable" -> "threshold"',
        ]

    def test_what_left_the_predictions_alone_did_not_move_the_test_score(self, state: State) -> None:
        state.code, state.compare["decision"], state.test["knn"] = "second", "threshold", 0.66
        found = section(told(state), "Why")
        assert found[found.index("  tiny/knn: test moved, because of:") + 1 :] == [
            '    compare.decision: "most_probable" -> "threshold"',
            "  tiny/knn: validation stayed the same, although there changed:",
            "    code: pipeline/heads",
        ]

    def test_libraries_explain_what_no_stage_does(self, state: State) -> None:
        state.libraries, state.validation["knn"] = {"numpy": "2.1"}, 0.72
        assert section(told(state), "Why") == [
            "  tiny/knn: validation moved, because of:",
            '    numpy: "2.0" -> "2.1"',
        ]

    def test_what_nothing_explains_is_said(self, state: State) -> None:
        state.validation["knn"] = 0.72
        assert section(told(state), "Why") == ["  tiny/knn: validation moved; nothing recorded explains it"]

    def test_embeddings_that_came_out_otherwise_are_named(self, state: State) -> None:
        state.noise, state.validation["knn"] = "another processor", 0.72
        found = section(told(state), "Why")
        assert "    data/embeddings/tiny.h5: other bytes, though nothing recorded that it is made from changed" in found


class TestRevisions:
    def test_what_is_no_longer_in_the_cache_is_not_known_and_the_rest_is(self, state: State) -> None:
        state.images["new.png"], state.recipe["dtype"] = ["bytes new", "red", "train"], "float32"
        state.validation["knn"] = 0.72
        state.commit("after")
        for path in state.objects.rglob("*"):
            if path.is_file():
                path.unlink()
        text = diff.main(params.load(), ["before", "after"])
        assert "data/manifest.parquet of before" in section(text, "Images")[0]
        assert "run `dvc fetch" in section(text, "Images")[0]
        assert "data/embeddings/tiny.json of before" in section(text, "Recipe")[0]
        assert "70.00% -> 72.00% (+2.00 points)" in text
        assert "data/raw: other content" in text

    def test_an_object_that_was_altered_is_refused(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        state.images.popitem()
        state.commit("after")
        for path in state.objects.rglob("*"):
            if path.is_file():
                path.write_bytes(b"x")
        assert main(["diff", "before", "after"]) == 2
        assert "altered since DVC stored it" in capsys.readouterr().err

    def test_an_object_that_is_no_manifest_is_refused(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(State, "manifest", lambda self: b"no parquet")
        with pytest.raises(StateError, match="manifest.parquet of after .*: not a manifest"):
            told(state)

    def test_metrics_that_are_no_json_are_refused(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
        path, lock = Path("metrics/tiny/knn.json"), Path("dvc.lock")
        lock.write_text(lock.read_text().replace(md5_of(path.read_bytes()), md5_of(b"[1")))
        path.write_text("[1")
        assert main(["diff", "before"]) == 2
        assert "metrics/tiny/knn.json of the working tree: got no JSON object" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("path", "shown", "told"),
        [
            ("metrics/tiny/knn.json", "0.7", "tiny/knn     70.00% -> not known    65.00%, the same"),
            ("reports/scores.json", "0.65", "tiny/knn     70.00%, the same     65.00% -> not known"),
        ],
    )
    @pytest.mark.parametrize("committed", [True, False])
    def test_numbers_that_are_not_what_the_lock_holds_are_not_repeated(
        self, state: State, path: str, shown: str, told: str, committed: bool
    ) -> None:
        state.write()
        Path(path).write_text(Path(path).read_text().replace(shown, "0.99"))
        if committed:
            git("commit", "-a", "-m", "after")
            git("tag", "after")
        text = diff.main(params.load(), ["before", *["after"] * committed])
        (line,) = [line for line in text.splitlines() if line.startswith(f"{path} of ")]
        assert line.endswith(" is not what dvc.lock holds; run `headswap audit`")
        assert " ".join(told.split()) in " ".join(text.split())
        assert "99.00%" not in text
        assert "nothing recorded explains it" not in text

    @pytest.mark.parametrize("path", ["reports/verdict.json", "data/embeddings/tiny.json", "models/tiny/knn/run.json"])
    def test_words_that_are_not_what_the_lock_holds_are_not_repeated(self, state: State, path: str) -> None:
        state.validation["knn"] = 0.72
        state.write()
        state.file(path, {"answer": "fine-tune", "facts": {"made_with": {"libraries": {"numpy": "9"}}}})
        lines = diff.main(params.load(), ["before"]).splitlines()
        assert f"{path} of the working tree is not what dvc.lock holds; run `headswap audit`" in lines
        assert not any("-> fine-tune" in line or '-> "9"' in line for line in lines)

    def test_one_revision_is_compared_with_the_working_tree(
        self, state: State, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state.heads["logreg"]["C"] = [0.01]
        state.write()
        assert main(["diff", "before"]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[0].endswith(" -> the working tree")
        assert "heads.logreg.C: [0.1, 1] -> [0.01]" in out

    def test_what_was_edited_and_not_run_is_said(self, state: State, project: Project) -> None:
        state.heads = {"logreg": {"C": [0.1, 1.0]}, "knn": {"n_neighbors": 3}}
        state.write()
        project.write(heads={"knn": {"n_neighbors": 5}})
        last = diff.main(params.load(), ["before"]).splitlines()[-1]
        assert last.startswith("params.yaml was edited since, and that was not run yet: ")
        assert "heads.knn.n_neighbors" in last
        assert "heads.logreg" not in last

    @pytest.mark.parametrize(
        ("status", "first", "rows"),
        [
            ({}, "", ["80.00%, the same 75.00%, the same", "70.00%, the same 65.00%, the same"]),
            (
                {"prepare": [{"changed deps": {"data/raw": "modified"}}]},
                "data/raw: changed since, and that was not run yet: images, settings and results below are those of "
                "the last run; run `dvc repro`",
                ["80.00%, not run again yet 75.00%, not run again yet", "70.00%, not run again yet 65.00%, not run"],
            ),
            (
                {"train@tiny-knn": [{"changed deps": {"params.yaml": {"heads.knn": "modified"}}}]},
                "",
                ["80.00%, the same 75.00%, the same", "70.00%, not run again yet 65.00%, not run again yet"],
            ),
            (
                {"compare": ["changed command"], "other": [{"changed deps": {"x": "new"}}]},
                "",
                ["80.00%, the same 75.00%, not run again yet", "70.00%, the same 65.00%, not run again yet"],
            ),
            (
                {"train@tiny-knn": [{"changed outs": {"models/tiny/knn": "deleted"}}]},
                "",
                ["80.00%, the same 75.00%, the same", "70.00%, the same 65.00%, the same"],
            ),
        ],
    )
    def test_no_result_is_called_the_same_before_what_changed_was_run(
        self, state: State, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any], first: str, rows: list[str]
    ) -> None:
        state.write()
        monkeypatch.setattr(locks, "repository", lambda root: nullcontext(SimpleNamespace(status=lambda: status)))
        text = diff.main(params.load(), ["before"])
        assert text.splitlines()[1] == first
        results = [" ".join(line.split()) for line in section(text, "Results")[1:]]
        assert all(row in line for row, line in zip(rows, results, strict=True))
        assert "not run" not in diff.main(params.load(), ["before", "before"])

    def test_while_dvc_is_at_work_that_is_said(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy() -> None:
            raise LockError("Unable to acquire lock")

        state.write()
        monkeypatch.setattr(locks, "repository", lambda root: nullcontext(SimpleNamespace(status=busy)))
        said = "whether anything changed since the last run is not known: DVC is at work"
        assert said in diff.main(params.load(), ["before"]).splitlines()

    def test_two_that_are_equal_have_no_change(self, state: State) -> None:
        text = told(state)
        for heading in ("Images", "Recipe", "Heads and plans", "Other settings", "Code", "Why"):
            assert section(text, heading) == ["  no change"]

    def test_a_commit_without_a_lock_is_said(self, state: State) -> None:
        git("rm", "--cached", "dvc.lock")
        git("commit", "-m", "none")
        git("tag", "none")
        text = diff.main(params.load(), ["none", "before"])
        assert "has no dvc.lock: nothing had been run" in text
        assert "  added: tiny/logreg, tiny/knn" in section(text, "Heads and plans")

    @pytest.mark.parametrize(
        ("revisions", "expected"),
        [
            (["nowhere"], "REVISION: got 'nowhere', expected a commit, branch or tag"),
            (["--output=x"], None),
            (["before", "before", "before"], "REVISION: got 3, expected one or two"),
        ],
    )
    def test_what_is_no_revision_is_one_line(
        self, state: State, revisions: list[str], expected: str | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if expected is None:
            with pytest.raises(SystemExit):
                main(["diff", *revisions])
            return
        assert main(["diff", *revisions]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line


def test_the_repositorys_own_lock_is_understood() -> None:
    revision = Revision("here", None, locks.parse((REPOSITORY / "dvc.lock").read_bytes(), "dvc.lock"))
    listed = params.load(REPOSITORY / "params.yaml").runs()
    assert set(revision.runs) == {"/".join(run) for run in listed}
    assert revision.runs["efficientnet_lite0/logreg"] == "train@efficientnet_lite0-logreg"
    assert revision.settings["heads.logreg.C"] == "sweep"
    assert revision.metric in METRICS
