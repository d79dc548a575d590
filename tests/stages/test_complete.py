"""A run whose settings are refused: the others are judged, and it is named wherever one looks."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import export, predict, trace
from pipeline.core.artifacts import RUN_PLOTS
from pipeline.core.errors import CheckFailed, InputError, RefusedError, StateError
from pipeline.core.params import Params
from pipeline.evaluation import runs
from pipeline.heads import fitting
from pipeline.lineage.audit.audit import audit
from pipeline.stages import compare, complete, train
from pipeline.verdict import schema
from tests.conftest import Project, lay_out
from tests.stages.spine import run, working_in

TOO_MANY = {"logreg": {"C": 1.0}, "knn": {"n_neighbors": 5000}}


SETTINGS: dict[str, Any] = {
    "heads": TOO_MANY,
    "run": {"heads": ["logreg", "knn"], "plans": []},
    "curve": {"heads": {}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a project in which one head of two is refused, once."""
    with working_in(tmp_path_factory.mktemp("made")) as root:
        run(lay_out(root, 12), **SETTINGS)
    return root


@pytest.fixture
def params(project: Project, made: Path) -> Params:
    """Stand in a copy of it."""
    shutil.copytree(made, project.root, dirs_exist_ok=True)
    return project.write(**SETTINGS)


def test_the_verdict_is_over_the_runs_that_are_there_and_names_the_other_with_its_reason(params: Params) -> None:
    content = schema.read()
    assert [one["name"] for one in content["results"]] == ["logreg"]
    assert list(content["failed"]) == ["tiny/knn"]
    assert content["failed"]["tiny/knn"].startswith("params.yaml: heads.knn: ")
    assert "5000" in content["failed"]["tiny/knn"]
    assert content["sentence"].endswith("Not judged because it failed: tiny/knn.")
    assert "models/tiny/knn/run.json" in content["inputs"]
    page = schema.PAGE.read_text()
    assert "<strong><bdi>tiny/knn</bdi> failed</strong> and has no scores: params.yaml: heads.knn: " in page
    with pytest.raises(CheckFailed, match=r"tiny/knn failed: params\.yaml: heads\.knn: .*5000"):
        complete.main(params)


@pytest.mark.parametrize("verb", ["compare", "predict", "export", "trace"])
def test_who_asks_for_a_failed_run_gets_one_line_that_says_so(params: Params, verb: str) -> None:
    ask = {
        "compare": lambda: compare.main(params, ["logreg", "knn"]),
        "predict": lambda: predict.main(params, "knn", ["data/raw"], out=None),
        "export": lambda: export.main(params, "knn", "knn.onnx"),
        "trace": lambda: trace.main(params, "knn"),
    }
    with pytest.raises(
        StateError, match=r"tiny/knn: failed: params\.yaml: heads\.knn: .*; correct params\.yaml"
    ) as error:
        ask[verb]()
    assert len(error.value.problems) == 1


def test_images_can_be_traced_and_nothing_looks_altered(params: Params) -> None:
    assert "tiny/logreg" in trace.main(params, "blue/00.png")
    done = audit(params)
    files = {finding.path for finding in done.findings}
    assert not {path for path in files if "knn" in path}
    assert any("tiny/knn failed, and made nothing: " in note for note in done.notes)


def test_a_mended_head_is_judged_again(params: Params, project: Project) -> None:
    mended = project.write(heads={"knn": {"n_neighbors": 3}})
    train.main(mended, "tiny", "knn")
    compare.main(mended)
    assert schema.read()["failed"] == {}
    assert complete.main(mended) == "all 2 runs were made and judged"


def test_a_failure_leaves_nothing_of_an_earlier_model(finished: Project) -> None:
    train.main(finished.write(heads={"logreg": {"C": -1.0}}), "tiny", "logreg")
    assert [path.name for path in runs.folder("tiny", "logreg").iterdir()] == ["run.json"]
    assert json.loads(runs.metrics_path("tiny", "logreg").read_text())["failed"].startswith("params.yaml: heads.logreg")


def test_a_plan_whose_settings_are_refused_leaves_the_heads_their_verdict(project: Project) -> None:
    content = run(project, plans={"last": {"unfreeze_from": "second", "epochs": 2, "batch_size": 999}})
    assert [one["name"] for one in content["results"]] == ["logreg"]
    assert "batch_size: got 999" in content["failed"]["tiny/last"]
    assert sorted(path.name for path in RUN_PLOTS["confusion"].at("tiny", "last").parent.iterdir()) == [
        "calibration.csv", "confusion.csv", "loss.csv", "validation.csv"
    ]  # fmt: skip


def test_what_the_label_curve_lacks_is_named_beside_the_verdict_and_fails_the_last_stage(project: Project) -> None:
    content = run(project, run={"plans": []}, curve={"heads": {"knn": {"n_neighbors": 12}, "logreg": {"C": 1.0}}})
    reason = r"params\.yaml: curve\.heads\.knn: .*12.* \(with 9 training images\)"
    note = f"knn on tiny is left out of the label curve because it failed: {reason}"
    assert any(re.fullmatch(note, one) for one in content["notes"])
    with pytest.raises(CheckFailed, match=f"^tiny/knn in the label curve failed: {reason}$"):
        complete.main(project.write())


def test_without_any_head_the_reasons_are_the_answer(project: Project) -> None:
    with pytest.raises(StateError, match=r"no head was trained.*\nparams\.yaml: heads\.knn: "):
        run(project, heads=TOO_MANY, run={"heads": ["knn"], "plans": []}, curve={"heads": {}})


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_what_may_go_well_another_time_is_no_result(
    finished: Project, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = runs.stamp_path("tiny", "logreg").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fitting, "_search", fail)
    with pytest.raises((InputError, OSError, KeyboardInterrupt)) as raised:
        train.main(finished.write(), "tiny", "logreg")
    assert not isinstance(raised.value, RefusedError)
    assert runs.stamp_path("tiny", "logreg").read_bytes() == before
