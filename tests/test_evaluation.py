from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics

from pipeline import evaluation, stamps
from pipeline.errors import StateError
from pipeline.evaluation import Predictions


def predictions(seed: int = 0, n: int = 60, classes: int = 3, skill: float = 1.0) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    logits = generator.normal(size=(n, classes)).round(1)  # rounding makes ties
    logits[np.arange(n), truth] += skill
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"c{k}" for k in range(classes)]
    return Predictions([str(i) for i in range(n)], ["test"] * n, [names[k] for k in truth], names, probability)


def reference(name: str, one: Predictions, weight: np.ndarray) -> float:
    truth, decision, p = one.truth(), one.decision(), one.probability
    if name == "accuracy":
        return float(metrics.accuracy_score(truth, decision, sample_weight=weight))
    if name == "balanced_accuracy":
        return float(metrics.balanced_accuracy_score(truth, decision, sample_weight=weight))
    if name == "macro_f1":
        return float(metrics.f1_score(truth, decision, average="macro", sample_weight=weight))
    if p.shape[1] == 2:
        return float(metrics.roc_auc_score(truth, p[:, 1], sample_weight=weight))
    areas = [metrics.roc_auc_score(truth == k, p[:, k], sample_weight=weight) for k in range(p.shape[1])]
    return float(np.mean(areas))


@pytest.mark.parametrize("name", list(evaluation.METRICS))
@pytest.mark.parametrize("classes", [2, 3, 5])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_every_metric_is_scikit_learns_also_when_rows_are_resampled(name: str, classes: int, seed: int) -> None:
    one = predictions(seed, classes=classes)
    weight = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), size=2).astype(float) + 0.0
    weight[0] = 1
    if any(len(np.unique(one.truth()[row > 0])) < classes for row in weight):
        return
    found = evaluation.METRICS[name](weight, one.truth(), one.probability)
    np.testing.assert_allclose(found, [reference(name, one, row) for row in weight], rtol=1e-12)


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        right = generator.random(120) < 0.8
        p_first = np.where((np.arange(120) % 2 == 0) == right, 0.9, 0.1)
        probability = np.column_stack([p_first, 1 - p_first])
        one = Predictions(list(map(str, range(120))), ["test"] * 120, ["a", "b"] * 60, ["a", "b"], probability)
        low, high = evaluation.interval(evaluation.bootstrap([one], 300, 0)["accuracy"][0])
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.98


def test_many_classes_need_no_memory_beyond_their_columns() -> None:
    one = predictions(n=900, classes=300)
    assert set(evaluation.score(one)) == set(evaluation.METRICS)  # a square of classes per row would take gigabytes


def test_a_resample_without_some_class_still_counts_towards_the_roc_auc() -> None:
    one = predictions(n=24, classes=12)
    samples = evaluation.bootstrap([one], 200, 0)["roc_auc"][0]
    assert np.isfinite(samples).all()
    assert samples.std() > 0


@pytest.mark.parametrize(("n", "both", "gain"), [(30, 0.8, 0.05), (30, 0.9, 0.0), (120, 0.8, 0.03), (12, 0.95, 0.0)])
def test_the_paired_interval_covers_the_true_difference_also_on_few_images(n: int, both: float, gain: float) -> None:
    """Nominal 95%: the bootstrap, which shrinks to nothing where no image is decided differently, falls far below."""
    generator = np.random.default_rng(0)
    chances = [both, 0.03 + gain, 0.03, 1 - both - 0.06 - gain] if both < 0.9 else [both, 0.02, 0.02, 0.96 - both]
    covered = 0
    for _ in range(600):
        drawn = generator.choice(4, size=n, p=chances)  # both right, only first, only second, neither
        first, second = (_deciding(np.isin(drawn, right)) for right in ([0, 1], [0, 2]))
        low, high = evaluation.paired_accuracy_interval(first, second)
        covered += low <= chances[1] - chances[2] <= high
    assert covered / 600 >= 0.94


def test_the_paired_interval_does_not_collapse_and_turns_round_with_its_arguments() -> None:
    perfect = _deciding(np.ones(10, dtype=bool))
    low, high = evaluation.paired_accuracy_interval(perfect, perfect)
    assert (low, high) == (pytest.approx(-0.2775, abs=1e-4), pytest.approx(0.2775, abs=1e-4))  # Wilson of 10 out of 10
    one, two = predictions(0), predictions(1)
    forth, back = evaluation.paired_accuracy_interval(one, two), evaluation.paired_accuracy_interval(two, one)
    assert forth == pytest.approx((-back[1], -back[0]))


def _deciding(right: np.ndarray) -> Predictions:
    """Make predictions of class a, right where told."""
    n = len(right)
    probability = np.where(right, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]
    return Predictions(list(map(str, range(n))), ["test"] * n, ["a"] * n, ["a", "b"], probability)


def test_all_runs_see_the_same_resamples() -> None:
    one = predictions()
    samples = evaluation.bootstrap([one, one], 50, seed=3)
    assert all((values[0] == values[1]).all() for values in samples.values())


def test_runs_on_different_images_are_not_compared() -> None:
    with pytest.raises(StateError, match="different images"):
        evaluation.bootstrap([predictions(n=60), predictions(n=59)], 10, 0)


@given(st.integers(0, 500), st.integers(1, 500))
@settings(max_examples=20)
def test_mcnemar_is_the_exact_binomial_of_the_discordant_images(first: int, second: int) -> None:
    one, two = predictions(first), predictions(second + 1000)
    only_first, only_second, p = evaluation.mcnemar(one, two)
    right_one, right_two = one.decision() == one.truth(), two.decision() == two.truth()
    assert (only_first, only_second) == ((right_one > right_two).sum(), (right_two > right_one).sum())
    tail = 2 * binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
    assert p == pytest.approx(min(1.0, tail))


def test_mcnemar_of_equal_decisions_is_one() -> None:
    assert evaluation.mcnemar(predictions(), predictions()) == (0, 0, 1.0)


def test_predictions_read_back_as_written(tmp_path: Path) -> None:
    path, one = tmp_path / "p.parquet", predictions()
    evaluation.write(path, one)
    read = evaluation.read(path, stamps.Stamp("train", stamps.hashes([path]), {}))
    np.testing.assert_array_equal(read.probability, one.probability)
    assert (read.image_id, read.label, read.classes) == (one.image_id, one.label, one.classes)


def test_altered_predictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    evaluation.write(path, predictions())
    stamp = stamps.Stamp("train", stamps.hashes([path]), {})
    evaluation.write(path, predictions(1))
    with pytest.raises(StateError, match="as stamped"):
        evaluation.read(path, stamp)


def test_a_split_without_some_class_has_no_roc_auc() -> None:
    one = predictions()
    alone = Predictions(one.image_id[:1], one.split[:1], one.label[:1], one.classes, one.probability[:1])
    with pytest.raises(StateError, match="lacks images of some class"):
        evaluation.score(alone)
