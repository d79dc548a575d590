"""`headswap diff`: what a revision still holds, and the working tree."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.lock import LockError

from pipeline.cli import main
from pipeline.commands import diff
from pipeline.core import locks, params
from pipeline.core.errors import StateError
from pipeline.evaluation.scoring.metrics import METRICS
from pipeline.lineage.diff.revisions import Revision
from tests.commands.diff.history import State, git, md5_of, section, told
from tests.conftest import REPOSITORY, Project


class TestRevisions:
    def test_without_dvcs_objects_only_what_they_hold_is_unknown(self, state: State) -> None:
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

    def test_an_altered_object_is_refused(self, state: State, capsys: pytest.CaptureFixture[str]) -> None:
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
    def test_scores_that_differ_from_the_lock_are_not_shown(
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
    def test_text_that_differs_from_the_lock_is_not_shown(self, state: State, path: str) -> None:
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

    def test_settings_edited_since_the_run_are_named(self, state: State, project: Project) -> None:
        state.heads = {"logreg": {"C": [0.1, 1.0]}, "knn": {"n_neighbors": 3}}
        state.write()
        project.write(heads={"knn": {"n_neighbors": 5}})
        last = diff.main(params.load(), ["before"]).splitlines()[-1]
        assert last.startswith("edited in params.yaml since the last run: ")
        assert "heads.knn.n_neighbors" in last
        assert "heads.logreg" not in last

    @pytest.mark.parametrize(
        ("status", "first", "rows"),
        [
            ({}, "", ["80.00%, the same 75.00%, the same", "70.00%, the same 65.00%, the same"]),
            (
                {"prepare": [{"changed deps": {"data/raw": "modified"}}]},
                "data/raw: changed since the last run: images, settings and results below are those of "
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
    def test_results_of_changed_stages_are_marked_until_they_run_again(
        self, state: State, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any], first: str, rows: list[str]
    ) -> None:
        state.write()
        monkeypatch.setattr(locks, "repository", lambda root: nullcontext(SimpleNamespace(status=lambda: status)))
        text = diff.main(params.load(), ["before"])
        assert text.splitlines()[1] == first
        results = [" ".join(line.split()) for line in section(text, "Results")[1:]]
        assert all(row in line for row, line in zip(rows, results, strict=True))
        assert "not run" not in diff.main(params.load(), ["before", "before"])

    def test_a_running_dvc_is_reported(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy() -> None:
            raise LockError("Unable to acquire lock")

        state.write()
        monkeypatch.setattr(locks, "repository", lambda root: nullcontext(SimpleNamespace(status=busy)))
        said = "whether anything changed since the last run is not known: DVC is at work"
        assert said in diff.main(params.load(), ["before"]).splitlines()

    def test_equal_revisions_have_no_change(self, state: State) -> None:
        text = told(state)
        for heading in ("Images", "Recipe", "Heads and plans", "Other settings", "Code", "Why"):
            assert section(text, heading) == ["  no change"]

    def test_a_commit_without_a_lock_is_reported(self, state: State) -> None:
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
    def test_an_unknown_revision_is_one_line(
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
