"""From runs to the verdict, on made-up predictions."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.core.stamps import Stamp
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import curves, runs, surveys
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.runs import FinishedRun, RunResult
from pipeline.evaluation.scoring.metrics import METRICS, Metric
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability
from pipeline.verdict import judge
from pipeline.verdict.chance import chance_level
from pipeline.verdict.judge import Background
from pipeline.verdict.schema import Verdict
from pipeline.verdict.scored_runs import score
from tests.conftest import Project

SCORES = Transferability(20, 20, -0.4, 0.7, 0.8, 5, 0.5)


@pytest.fixture
def params(project: Project) -> Params:
    for path in (
        matrix.matrix_path("tiny"),
        matrix.cost_path("tiny"),
        skipped.path_of("tiny"),
        curves.path_of("tiny"),
        curves.stamp_path("tiny"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes")
    stamps.write(matrix.stamp_path("tiny"), Stamp("embed@tiny", {}, {}))
    surveys.write("tiny", survey(), {})
    return project.write()


def survey() -> Survey:
    return Survey(["a.png"], np.zeros((1, 2)), SCORES)


def predicted(right: Sequence[bool], truth: Sequence[int] | None = None, classes: int = 2) -> Predictions:
    """Make predictions of as many validation and as many test images; `right` says which test images are right."""
    names = [f"c{k}" for k in range(classes)]
    true = np.resize(np.arange(classes), len(right)) if truth is None else np.array(truth)
    decided = np.where(right, true, (true + 1) % classes)
    probability = np.full((len(right), classes), 0.2 / (classes - 1))
    probability[np.arange(len(right)), decided] = 0.8
    both = np.resize(np.arange(classes), len(right))
    labels = [names[k] for k in both] + [names[k] for k in true]
    ids = [f"{split}{number}" for split in ("val", "test") for number in range(len(right))]
    splits = ["val"] * len(right) + ["test"] * len(right)
    validation = np.eye(classes)[both] * 0.6 + 0.4 / classes
    return Predictions(ids, splits, labels, names, np.concatenate([validation, probability]))


def finished(name: str, kind: str, given: Predictions, **facts: Any) -> FinishedRun:
    """Record a run as its stage would."""
    folder = runs.folder("tiny", name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").write_bytes(b"12345")
    timed = {"prediction": {"seconds_per_1000": 2.0, "images": 10, "runtime": "x"}}
    made = RunResult(given, [folder / "model"], Cost(1.0, 3.0 if kind == "plan" else 0.5, 10))
    runs.record("tiny", name, kind, made, {}, {"params": {}, "device": "cpu", **timed, **facts})
    return runs.read("tiny", name)


def judged(some: Sequence[FinishedRun], params: Params, group_of: Mapping[str, str] | None = None) -> Verdict:
    background = Background(
        {"tiny": Cost(2.0, 1.0, 100, running_seconds=1.6, running_images=80)}, {"tiny": {}}, {}, {"tiny": survey()}
    )
    return judge.judge(score(some, params, group_of or {}), background, params)


def head_and_plan(wrong_of_head: int, wrong_of_plan: int, n: int = 200) -> list[FinishedRun]:
    head = finished("logreg", "head", predicted([False] * wrong_of_head + [True] * (n - wrong_of_head)))
    plan = finished("last", "plan", predicted([True] * (n - wrong_of_plan) + [False] * wrong_of_plan))
    return [head, plan]


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.012, 0.05, "fine-tune"),
        (-0.02, 0.03, "cannot tell"),
        (-0.05, 0.005, "keep the frozen head"),
        (-0.05, -0.01, "keep the frozen head"),
        (0.001, 0.009, "keep the frozen head"),
    ],
)
def test_the_interval_and_the_margin_give_the_answer(low: float, high: float, answer: str) -> None:
    assert judge.answer_of(Estimate((low + high) / 2, low, high), margin=0.01) == answer


@pytest.mark.parametrize(
    ("wrong", "answer", "ending"),
    [
        ((60, 5), "fine-tune", " for 2.0x the CPU time. Fine-tune."),
        ((5, 60), "keep the frozen head", " for 2.0x the CPU time. Keep the frozen head."),
        (
            (8, 8),
            "cannot tell",
            "is right on 16 of the 200 test images, too few to show a difference this small. "
            "Fine-tuning has not been shown to pay.",
        ),
    ],
)
def test_the_sentence_ends_with_the_answer(params: Params, wrong: tuple[int, int], answer: str, ending: str) -> None:
    found = judged(head_and_plan(*wrong), params)
    assert found.answer == answer
    assert found.sentence.startswith("The best frozen head, logreg, reaches ")
    assert f"fine-tuning (last) changes that by {(wrong[0] - wrong[1]) / 2:+.1f} points [" in found.sentence
    assert found.sentence.endswith(ending)


def test_a_head_costs_its_pass_and_its_fit_and_a_plan_its_training(params: Params) -> None:
    head, plan = judged(head_and_plan(8, 8), params).results
    assert (head.cost.cpu_seconds, head.cost.images) == (1.5, 110)
    assert (plan.cost.cpu_seconds, plan.cost.images) == (3.0, 10)
    assert head.seconds_per_1000 == pytest.approx(2.0 + 1000 * 1.6 / 80)
    assert plan.seconds_per_1000 == 2.0
    assert (head.bytes_on_disk, plan.bytes_on_disk) == (10, 5)


def test_the_pareto_front_holds_the_runs_that_no_other_dominates(params: Params) -> None:
    found = judged([*head_and_plan(8, 4), finished("knn", "head", predicted([False] * 30 + [True] * 170))], params)
    assert [result.on_front for result in found.results] == [True, True, False]


def test_the_detectable_difference_is_that_of_the_compared_pair(params: Params) -> None:
    found = judged([*head_and_plan(8, 4), finished("knn", "head", predicted([False] * 30 + [True] * 170))], params)
    assert found.detectable is not None
    assert set(found.detectable.between) == {found.best_head, found.best_plan}
    assert found.detectable.discordant == 12
    assert len(found.pairs) == 3


def test_a_single_run_is_reported_with_nothing_to_compare(params: Params) -> None:
    found = judged(head_and_plan(8, 8)[:1], params)
    assert found.answer == "cannot tell"
    assert found.sentence.endswith("It is the only run, so there is nothing to compare it with.")
    assert (found.pairs, found.detectable, found.best_plan) == ([], None, None)


def test_heads_alone_give_no_answer(params: Params) -> None:
    found = judged([head_and_plan(8, 8)[0], finished("knn", "head", predicted([True] * 200))], params)
    assert found.sentence.endswith("No fine-tuned plan was run, so whether fine-tuning would pay is unknown.")
    assert found.detectable is not None


def test_plans_alone_are_refused(params: Params) -> None:
    with pytest.raises(StateError, match="no head was trained"):
        judged(head_and_plan(8, 8)[1:], params)


def test_runs_on_different_test_images_are_refused_naming_both(params: Params) -> None:
    one, other = head_and_plan(8, 8)
    fewer = dataclasses.replace(other, predictions=predicted([True] * 100))
    with pytest.raises(StateError, match=r"tiny/logreg and tiny/last: .* different test images \(200 and 100\)"):
        judged([one, fewer], params)


def test_a_class_absent_from_the_test_split_is_named_and_the_rest_reported(params: Params) -> None:
    given = predicted([True] * 45 + [False] * 5, truth=[0] * 50)
    found = judged([finished("logreg", "head", given)], params)
    assert "No test image is of class 'c1', so these numbers say nothing about that class." in found.notes
    assert found.results[0].test["accuracy"].value == pytest.approx(0.9)
    assert "roc_auc" not in found.results[0].test
    assert "logreg: some class has too few test images for roc auc, average precision." in found.notes
    assert list(found.results[0].detail["by_class"]) == ["c0"]


def test_constant_predictions_are_named(params: Params) -> None:
    given = predicted([k % 2 == 0 for k in range(60)])
    found = judged([finished("logreg", "head", given)], params)
    assert found.notes == [
        "The best frozen head, logreg, has not been shown to be better than chance: always predicting 'c0' would reach "
        "50.0% accuracy, and the 95% interval of logreg is "
        f"{found.results[0].test['accuracy'].low:.1%} to {found.results[0].test['accuracy'].high:.1%}.",
        "logreg predicts 'c0' for every test image.",
    ]
    assert found.results[0].test["roc_auc"].value == pytest.approx(0.5)


def test_a_head_above_the_largest_class_is_not_compared_with_chance_in_the_notes(params: Params) -> None:
    assert judged(head_and_plan(8, 8), params).notes == []


@pytest.mark.parametrize(
    ("metric", "score"), [("accuracy", 0.6), ("balanced_accuracy", 1 / 3), ("macro_f1", 2 * 0.6 / 1.6 / 3)]
)
def test_the_chance_level_is_the_score_of_always_predicting_the_largest_class(metric: str, score: float) -> None:
    assert chance_level(metric, {"a": 3, "b": 6, "c": 1}) == ("b", pytest.approx(score))


def test_notes_of_the_search_come_after_all_others(params: Params) -> None:
    advice = "C=1 is the smallest of the 3 tried; smaller may do better."
    given = predicted([k % 2 == 0 for k in range(60)])
    found = judged([finished("logreg", "head", given, notes=[advice])], params)
    assert [note == f"logreg: {advice}" for note in found.notes] == [False, False, True]


def test_without_a_plan_the_rule_does_not_speak_of_one_that_was_compared(params: Params) -> None:
    alone, grouped = judged(head_and_plan(8, 8)[:1], params), judged(head_and_plan(8, 8)[:1], params, dealt(20, 200))
    assert "plan minus head" not in alone.rule
    assert "Without a fine-tuned plan there is nothing to decide" in alone.rule
    assert grouped.rule == f"{alone.rule} Intervals and tests treat each group of test images as one unit."


def test_where_classes_are_unequal_the_sentence_has_both_accuracies(params: Params) -> None:
    truth = [0] * 170 + [1] * 30
    head = finished("logreg", "head", predicted([True] * 163 + [False] * 7 + [True] * 1 + [False] * 29, truth))
    plan = finished("last", "plan", predicted([True] * 170 + [True] * 15 + [False] * 15, truth))
    sentence = judged([head, plan], params).sentence
    assert "logreg, reaches 82.0% test accuracy (49.6% balanced accuracy); fine-tuning (last) changes" in sentence
    assert "] (to 75.0% balanced accuracy) for 2.0x the CPU time." in sentence


def test_a_run_of_an_earlier_version_is_refused(params: Params) -> None:
    one = head_and_plan(8, 8)[0]
    facts = {name: value for name, value in one.stamp.facts.items() if name != "device"}
    old = dataclasses.replace(one, stamp=dataclasses.replace(one.stamp, facts=facts))
    with pytest.raises(StateError, match="lacks 'device'; run `dvc repro --force`"):
        judged([old], params)


def test_each_of_the_three_factors_has_a_sentence_with_its_numbers(params: Params) -> None:
    labels, similarity, compute = judged(head_and_plan(8, 8), params).standing
    assert labels.sentence.startswith("Not measured")
    assert "finds the class of 80.0% of 20 training images; always naming the largest" in similarity.sentence
    assert "class finds 50.0%. The vote closes 60% of the gap to 100%." in similarity.sentence
    assert "range from 0.4 to 0.9" in similarity.sentence
    assert "logreg took 2 s of CPU time and last 3 s on cpu: 2.0x the CPU time." in compute.sentence
    assert compute.sentence.endswith(
        "To predict, both pass an image through tiny once; their timings differ by more than logreg adds to that, so "
        "they do not show which is faster."
    )


def test_every_file_behind_the_numbers_is_listed(params: Params) -> None:
    found = judged(head_and_plan(8, 8), params).inputs
    runs_files = {"models/tiny/last/run.json", "predictions/tiny/last.parquet", "metrics/tiny/last.json"}
    of_backbone = {"survey/tiny.parquet", "survey/tiny.json", "data/embeddings/tiny.json", "curves/tiny.parquet"}
    of_backbone.add("data/embeddings/tiny.skipped.json")
    assert runs_files | of_backbone <= found.keys()
    assert all(stamps.sha256_file(Path(path)) == sha256 for path, sha256 in found.items())


def dealt(groups: int, n: int) -> dict[str, str]:
    """Assign the test images that `predicted` makes to groups, in order."""
    return {f"test{number}": f"patient {number * groups // n}" for number in range(n)}


def test_groups_are_the_unit_where_there_are_any(params: Params) -> None:
    """A plan that is better on all images of two patients of twenty and equal elsewhere has not been shown to be."""
    n = 600
    apart, together = judged(head_and_plan(60, 0, n), params), judged(head_and_plan(60, 0, n), params, dealt(20, n))
    assert (apart.answer, apart.test_groups) == ("fine-tune", None)
    assert (together.answer, together.test_groups) == ("cannot tell", 20)
    before, after = apart.pair("tiny/last", "tiny/logreg"), together.pair("tiny/last", "tiny/logreg")
    assert (before.differing_groups, after.differing_groups) == (None, 2)
    assert after.difference.low < 0 < before.difference.low
    assert before.p < 1e-15
    assert after.p == pytest.approx(0.5)
    assert together.detectable.difference > 3 * apart.detectable.difference  # type: ignore[union-attr,operator]
    assert "The two differ on 2 of the 20 groups that the 600 test images come from" in together.sentence
    assert "Interval and test treat each group of test images as one unit" in together.rule
    for metric, estimate in together.results[0].test.items():
        alone = apart.results[0].test[metric]
        assert estimate.high - estimate.low > alone.high - alone.low


def test_the_interval_of_a_metric_that_can_be_negative_is_not_cut_at_zero(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = Metric(lambda counts, outcomes: 2 * METRICS["accuracy"](counts, outcomes) - 1, least=-1.0)
    monkeypatch.setitem(METRICS, "signed", signed)  # type: ignore[arg-type]
    found = judged(head_and_plan(300, 300, 600), params, dealt(20, 600)).results[0].test["signed"]
    assert -1 <= found.low < 0


def test_groups_of_one_image_each_change_nothing(params: Params) -> None:
    alone, named = judged(head_and_plan(8, 4), params), judged(head_and_plan(8, 4), params, dealt(200, 200))
    assert named == alone


@pytest.mark.parametrize(
    ("wrong", "groups", "reason"),
    [
        (100, 5, "The test images come from 5 groups; fewer than 6 cannot show anything"),
        (2, 5, "The test images come from 5 groups; fewer than 6 cannot show anything"),
    ],
)
def test_too_few_groups_give_no_answer_and_it_says_why(params: Params, wrong: int, groups: int, reason: str) -> None:
    found = judged(head_and_plan(wrong, 0), params, dealt(groups, 200))
    assert found.answer == "cannot tell"
    assert reason in found.sentence
    assert found.detectable is not None
    assert found.detectable.difference is None


def test_a_gain_in_five_groups_of_many_alike_is_no_answer(params: Params) -> None:
    """The interval alone would lie above zero, but even the most extreme outcome of five groups is not rare enough."""
    found = judged(head_and_plan(125, 0, 500), params, dealt(20, 500))
    gain = found.pair("tiny/last", "tiny/logreg")
    assert (gain.differing_groups, gain.difference.low > 0, gain.p > 0.05) == (5, True, True)
    assert found.answer == "cannot tell"
    assert "The two differ on 5 of 20 groups; fewer than 6 cannot show which is better" in found.sentence


def choosing(params: Params, wrong: int, groups: int, images: int) -> Verdict:
    """Judge two heads, of which the second gets so many of the validation images wrong, in so many groups."""
    one, two = predicted([True] * images), predicted([True] * images)
    probability = two.of("val").probabilities.probability.copy()
    probability[:wrong] = 1 - probability[:wrong]
    worse = dataclasses.replace(two, probability=np.concatenate([probability, probability]))
    group_of = {f"val{number}": f"patient {number % groups}" for number in range(images)} if groups else {}
    return judged([finished("logreg", "head", one), finished("knn", "head", worse)], params, group_of)


@pytest.mark.parametrize(
    ("wrong", "groups", "images", "words"),
    [
        (5, 1, 10, "10 validation images in 1 group: fewer than 6 groups cannot show which run is better."),
        (0, 0, 10, "10 validation images: the standard error of an accuracy on them, 9.4 points, is as large as the"),
        (20, 0, 100, None),
        (20, 10, 100, None),
    ],
)
def test_a_note_says_that_too_few_validation_images_choose(
    params: Params, wrong: int, groups: int, images: int, words: str | None
) -> None:
    found = choosing(params, wrong, groups, images)
    counted = f"on {images} validation images" + (f" in {groups} group" if groups else "")
    assert f"with the best validation accuracy, {counted}" in found.rule
    about = [note for note in found.notes if "are chosen on" in note]
    assert len(about) == (words is not None)
    if words:
        assert words in about[0]
        assert "`split.val` above" in about[0]
