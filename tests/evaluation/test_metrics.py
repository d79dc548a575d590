import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from pipeline.core.errors import StateError
from pipeline.evaluation.scoring import breakdown, metrics
from pipeline.evaluation.scoring.outcomes import BINS, Outcomes
from pipeline.evaluation.scoring.predictions import Predictions
from tests.evaluation.examples import predictions

IN_SCIKIT_LEARN = [name for name in metrics.METRICS if name != "calibration_error"]


def expected(name: str, one: Predictions, weight: np.ndarray) -> float:
    truth, decision, p = one.truth(), one.decision(), one.probability
    of_decisions = {
        "accuracy": lambda: reference.accuracy_score(truth, decision, sample_weight=weight),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(truth, decision, sample_weight=weight),
        "macro_f1": lambda: reference.f1_score(truth, decision, average="macro", sample_weight=weight),
        "log_loss": lambda: reference.log_loss(truth, p, sample_weight=weight),
        "brier": lambda: reference.brier_score_loss(truth, p[:, 1] if p.shape[1] == 2 else p, sample_weight=weight),
    }
    if name in of_decisions:
        return float(of_decisions[name]())
    of_scores = {"roc_auc": reference.roc_auc_score, "average_precision": reference.average_precision_score}
    assert name in of_scores, f"{name}: enter scikit-learn's formula in `expected`, or leave it out of IN_SCIKIT_LEARN"
    of_one = of_scores[name]
    if p.shape[1] == 2:
        return float(of_one(truth, p[:, 1], sample_weight=weight))
    return float(np.mean([of_one(truth == k, p[:, k], sample_weight=weight) for k in range(p.shape[1])]))


@pytest.mark.parametrize("name", IN_SCIKIT_LEARN)
@pytest.mark.parametrize("classes", [2, 3, 5])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_every_metric_is_scikit_learns_also_when_rows_are_resampled(name: str, classes: int, seed: int) -> None:
    one = predictions(seed, classes=classes)
    weight = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), size=2).astype(float) + 0.0
    weight[0] = 1
    if any(len(np.unique(one.truth()[row > 0])) < classes for row in weight):
        return
    found = metrics.METRICS[name](weight, Outcomes.of(one))
    np.testing.assert_allclose(found, [expected(name, one, row) for row in weight], rtol=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_precision_recall_and_confusion_are_scikit_learns(seed: int) -> None:
    one = predictions(seed)
    judged, once = Outcomes.of(one), np.ones((1, 60))
    truth, decision = one.truth(), one.decision()
    each = {"average": None, "zero_division": 0}
    np.testing.assert_allclose(
        breakdown.precision_by_class(once, judged)[0], reference.precision_score(truth, decision, **each)
    )
    np.testing.assert_allclose(
        breakdown.recall_by_class(once, judged)[0], reference.recall_score(truth, decision, **each)
    )
    pairs = np.unique(np.column_stack([truth, decision]), axis=0)
    matrix = reference.confusion_matrix(truth, decision, normalize="true")
    np.testing.assert_allclose(breakdown.confusion_shares(once, judged, pairs)[0], matrix[pairs[:, 0], pairs[:, 1]])


def test_calibration_bins_are_those_of_scikit_learns_reliability_curve() -> None:
    one = predictions(n=300, classes=2)
    images, confidence, right = breakdown.calibration_bins(one)
    used = images > 0
    is_right = one.decision() == one.truth()
    share, mean = calibration_curve(is_right, one.probability.max(axis=1), n_bins=BINS)
    np.testing.assert_allclose(right[used] / images[used], share)
    np.testing.assert_allclose(confidence[used] / images[used], mean)
    error = metrics.METRICS["calibration_error"](np.ones((1, 300)), Outcomes.of(one))[0]
    assert error == pytest.approx(float((images[used] / 300 * abs(share - mean)).sum()))


def test_many_classes_need_no_memory_beyond_their_columns() -> None:
    one = predictions(n=900, classes=300)
    assert set(metrics.score(one)) == set(metrics.METRICS)  # a square of classes per row would take gigabytes


def test_a_split_without_some_class_has_no_roc_auc() -> None:
    one = predictions()
    alone = Predictions(one.image_id[:1], one.split[:1], one.label[:1], one.classes, one.probability[:1])
    with pytest.raises(StateError, match="lacks images of some class"):
        metrics.score(alone)


def test_a_confidence_at_the_edge_of_two_bins_is_of_the_lower_one() -> None:
    sure = np.array([3 / 5, 2 / 3, 4 / 5, 1.0])
    outcomes = Outcomes.of_probabilities(np.zeros(4, np.int64), np.column_stack([sure, 1 - sure]))
    assert outcomes.bin.tolist() == [8, 9, 11, 14]
