"""The label-efficiency curve as a stage."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.splits.subsets import Subset
from pipeline.evaluation import curves, runs
from pipeline.evaluation.curves import CurveDecisions
from pipeline.finetuning import curve as of_plans
from pipeline.finetuning import fitting
from pipeline.finetuning.training import Trainer
from pipeline.stages import curve, embed, finetune, prepare, train
from tests.conftest import Project


def prepared(project: Project, **settings: Any) -> Params:
    params = project.write(curve=settings)
    prepare.main(params)
    embed.main(params, "tiny")
    return params


def drawn(project: Project, **settings: Any) -> CurveDecisions:
    curve.main(prepared(project, **settings), "tiny")
    return curves.read("tiny")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note of every training of a plan how many different images it learns from."""
    seen: list[int] = []
    real = fitting.run

    def noting(task: Any, *rest: Any) -> Any:
        seen.append(len(set(task.train.tolist())))
        return real(task, *rest)

    monkeypatch.setattr(of_plans.fitting, "run", noting)
    return seen


def test_every_head_and_plan_is_trained_on_every_part_of_every_drawing(project: Project, trained: list[int]) -> None:
    found = drawn(project, heads={"logreg": {"C": 0.1}, "knn": {"n_neighbors": 1}}, plans=["last"])
    assert found.kinds == {"logreg": "head", "knn": "head", "last": "plan"}
    expected = [(run, labels, seed) for run in found.kinds for seed in (0, 1) for labels in (9, 18)]
    assert [(point.run, point.labels, point.seed) for point in found.points] == expected
    assert trained == [9, 18, 9, 18]
    assert found.costs["last"].images > found.costs["logreg"].images == 0


def test_with_all_labels_a_head_decides_as_the_same_head_of_the_catalogue(project: Project) -> None:
    found = drawn(project, heads={"logreg": {"C": [0.1, 1.0]}})
    train.main(project.write(), "tiny", "logreg")
    expected = runs.read("tiny", "logreg").predictions
    assert found.image_id == expected.image_id
    np.testing.assert_array_equal(found.points[1].decided, expected.decision())


def test_with_all_labels_a_plan_decides_as_the_same_plan_of_the_catalogue(project: Project) -> None:
    found = drawn(project, heads={}, plans=["last"])
    finetune.main(project.write(), "tiny", "last")
    expected = runs.read("tiny", "last").predictions
    assert found.image_id == expected.image_id
    np.testing.assert_array_equal(found.points[1].decided, expected.decision())


def test_a_part_of_the_images_is_trained_on_for_as_many_steps_as_all_would_be() -> None:
    rows = of_plans.repeated(Subset(0, np.array([3, 5, 7])), 8)
    assert rows[:6].tolist() == [3, 5, 7, 3, 5, 7]
    assert len(set(rows[6:].tolist())) == 2
    assert of_plans.repeated(Subset(0, np.array([3, 5])), 2).tolist() == [3, 5]


def test_repeating_rows_keeps_the_balance_of_classes_that_lie_one_after_the_other() -> None:
    rows = of_plans.repeated(Subset(1, np.arange(76)), 100)
    assert abs(int((rows < 38).sum()) - 50) <= 6


def test_groups_that_a_head_needs_for_its_folds_are_in_every_part(project: Project) -> None:
    dealt = ["train"] * 4 + ["val", "test"]
    lines = ["path,label,group,split"]
    for path in project.images:
        name, pair = path.parent.name, int(path.stem) // 2
        lines.append(f"{name}/{path.name},{name},{name}-{pair},{dealt[pair]}")
    Path("data/raw/labels.csv").write_text("\n".join(lines))
    project.write(data={"source": "csv_file"}, split={"method": "predefined"})
    found = drawn(project, fractions=[0.1, 1.0], heads={"rbf_svm": {"C": 1, "gamma": 0.01}})
    assert [point.labels for point in found.points[:2]] == [6, 24]


@pytest.mark.parametrize("search", ["grid", "validation"])
def test_no_label_of_validation_or_test_images_reaches_what_is_learnt(project: Project, search: str) -> None:
    before = drawn(project, heads={"logreg": {"C": [0.1, 0.1], "search": search}})
    table = manifest.read()
    turned = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    dealt = zip(table.label, table.split, strict=True)
    labels = [turned[label] if split != "train" else label for label, split in dealt]
    manifest.write(manifest.Manifest(**{**vars(table), "label": labels}), {})
    embed.main(project.write(), "tiny")
    curve.main(project.write(), "tiny")
    for one, other in zip(before.points, curves.read("tiny").points, strict=True):
        np.testing.assert_array_equal(one.decided, other.decided)


def test_heads_learn_from_the_further_views_of_the_drawn_images_alone(project: Project) -> None:
    project.write(embed={"copies": 2})
    plain = drawn(project, heads={"knn": {"n_neighbors": 1}})
    assert [point.labels for point in plain.points] == [9, 18, 9, 18]


def test_finished_trainings_are_kept_and_a_longer_curve_trains_only_what_is_new(
    project: Project, trained: list[int]
) -> None:
    first = drawn(project, heads={}, plans=["last"])
    curve.main(project.write(curve={"seeds": 3}), "tiny")
    assert trained == [9, 18, 9, 18, 9, 18]
    longer = curves.read("tiny")
    for one, other in zip(first.points, longer.points[:4], strict=True):
        np.testing.assert_array_equal(one.decided, other.decided)
    assert longer.costs["last"].images == 1.5 * first.costs["last"].images


def test_another_plan_trains_anew(project: Project, trained: list[int]) -> None:
    drawn(project, heads={}, plans=["last"])
    project.write(plans={"last": {**project.content["plans"]["last"], "learning_rate": 0.001}})
    curve.main(project.write(), "tiny")
    assert trained == [9, 18] * 4


def test_killed_within_a_training_it_goes_on_there_and_ends_the_same(
    project: Project, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(project, heads={}, plans=["last"])
    subprocess.run(["rm", "-r", ".headswap/checkpoints"], check=True)
    trained.clear()
    steps: Iterator[int] = iter(range(1000))
    real = Trainer._step

    def killed_in_the_third_training(trainer: Trainer, epoch: int, batch: int) -> None:
        if next(steps) == 2 * 8 + 6:  # two epochs of four batches each; now in the second one
            raise KeyboardInterrupt
        real(trainer, epoch, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", killed_in_the_third_training)
        curve.main(project.write(), "tiny")
    curve.main(project.write(), "tiny")
    assert trained == [9, 18, 9, 9, 18]
    for one, other in zip(whole.points, curves.read("tiny").points, strict=True):
        np.testing.assert_array_equal(one.decided, other.decided)


def test_the_plans_share_is_priced_before_it_starts(
    project: Project, trained: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    params = prepared(project, plans=["last"])
    said = curve.main(params, "tiny", dry_run=True)
    pattern = r"4 trainings per head and plan, on 9, 18 images; last: 4 trainings, about \d+ s; nothing was computed"
    assert re.fullmatch(pattern, said)
    assert (trained, curves.path_of("tiny").exists()) == ([], False)
    curve.main(params, "tiny")
    assert "curve: last: 4 trainings, about" in capsys.readouterr().err
    assert "last: all 4 trainings are kept from before" in curve.main(params, "tiny", dry_run=True)


@pytest.mark.processors
def test_the_same_seed_gives_the_same_bytes(project: Project) -> None:
    drawn(project, plans=["last"])
    first = curves.path_of("tiny").read_bytes()
    subprocess.run(["rm", "-r", ".headswap/checkpoints"], check=True)
    drawn(project, plans=["last"])
    assert curves.path_of("tiny").read_bytes() == first


def test_heads_on_other_processes_decide_the_same_and_their_time_is_counted(project: Project) -> None:
    project.write(embed={"copies": 1})
    heads = {"logreg": {"C": [0.1, 1.0]}, "rbf_svm": {"C": 1}, "nearest_mean": {}}
    params = prepared(project, heads=heads)
    curve.main(params, "tiny")
    here = curves.path_of("tiny").read_bytes()
    with joblib.parallel_config("loky", n_jobs=2):
        curve.main(params, "tiny")
    assert curves.path_of("tiny").read_bytes() == here
    costs = curves.read("tiny").costs
    assert set(costs) == set(heads)
    assert all(cost.cpu_seconds > 0 and cost.joules is None for cost in costs.values())


@pytest.mark.parametrize("engine", ["sequential", "loky"])
def test_a_head_that_a_part_is_too_small_for_is_left_out_and_named(project: Project, engine: str) -> None:
    params = prepared(project, heads={"knn": {"n_neighbors": 12}, "logreg": {"C": 0.1}})
    with joblib.parallel_config(engine, n_jobs=2):
        said = curve.main(params, "tiny")
    found = curves.read("tiny")
    assert list(found.kinds) == ["logreg"]
    assert re.fullmatch(r"params.yaml: curve.heads.knn: .* \(with 9 training images\)", found.failed["knn"])
    assert said.endswith(f"FAILED, and left out: {found.failed['knn']}")


def test_a_plan_that_is_refused_is_left_out_and_named(project: Project) -> None:
    project.write(plans={"last": {**project.content["plans"]["last"], "batch_size": 999}})
    found = drawn(project, heads={"logreg": {"C": 0.1}}, plans=["last"])
    assert list(found.kinds) == ["logreg"]
    assert "batch_size: got 999" in found.failed["last"]


def test_nothing_to_draw_is_an_empty_curve(project: Project) -> None:
    assert drawn(project, heads={}, plans=[]).points == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": {"logrg": {}}}, r"curve.heads.logrg: got 'logrg', expected .* did you mean 'logreg'"),
        ({"heads": {"logreg": {"CC": 1}}}, r"curve.heads.logreg: unknown key: got 'CC', expected .* 'C'"),
        ({"plans": ["lst"]}, r"curve.plans: got 'lst', expected one of: last; did you mean 'last'"),
        ({"fractions": [0.5, 0.1]}, "curve.fractions: .*expected ascending fractions"),
        ({"fractions": [0.0]}, r"curve.fractions.0: got 0.0, expected a number above 0$"),
        ({"fractions": [1.5]}, r"curve.fractions.0: got 1.5, expected a number of at most 1$"),
        ({"seeds": 0}, "curve.seeds: got 0"),
        ({"sedes": 3}, "curve: unknown key: got 'sedes', expected .* did you mean 'seeds'"),
        ({"heads": {"last": {"kind": "logreg"}}, "plans": ["last"]}, "curve: 'last' is both a head and a plan"),
        ({"heads": {"logreg": {"C": float("nan")}}}, "curve.heads.logreg.C: expected a finite single value"),
    ],
)
def test_bad_settings_are_named(project: Project, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(project, **settings)
    assert not Path("curves").exists()
