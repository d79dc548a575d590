"""Calibration on validation images."""

import numpy as np
import pytest

from pipeline import heads
from pipeline.core.errors import InputError
from pipeline.heads import Rows, calibration
from tests.heads.examples import selection

METHODS = ["temperature", "sigmoid", "isotonic"]


def overconfident(n: int = 2000, classes: int = 2, sharpness: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from probabilities; return the probabilities, sharpened by a temperature, and the labels."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(n, classes))
    y = (logits + generator.gumbel(size=(n, classes))).argmax(axis=1)
    sharp = np.exp(sharpness * logits)
    return sharp / sharp.sum(axis=1, keepdims=True), np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_method_calibrates_overconfident_probabilities(method: str, classes: int) -> None:
    probability, y = overconfident(classes=classes)
    names = np.array(["a", "b", "c"][:classes])
    before = calibration.scores(probability, y, names)
    after = calibration.scores(calibration.cross_calibrate(method, probability, y, seed=0), y, names)
    assert before["calibration_error"] > 0.1
    assert after["calibration_error"] < before["calibration_error"] / 2
    assert after["log_loss"] < before["log_loss"]
    assert after["brier"] < before["brier"]


def test_temperature_scaling_finds_the_true_temperature() -> None:
    probability, y = overconfident(classes=3, sharpness=4.0)
    calibrated = calibration.fit_calibrator("temperature", probability, y).predict_proba(probability)
    ratio = np.log(calibrated[:, 0] / calibrated[:, 1]) / np.log(probability[:, 0] / probability[:, 1])
    assert np.median(ratio) == pytest.approx(1 / 4, rel=0.15)


def test_temperature_keeps_the_decisions_and_reports_scores_before_and_after() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 4)).astype(np.float32)
    y = np.where(X[:, 0] + generator.normal(size=300) > 0, "a", "b")
    train, validation = Rows.of(X[:150], y[:150]), Rows.of(X[150:], y[150:])
    plain = heads.fit("knn", {}, train, validation, selection(), 0)
    calibrated = heads.fit("knn", {"calibrate": "temperature"}, train, validation, selection(), 0)
    np.testing.assert_array_equal(plain.model.predict(X), calibrated.model.predict(X))
    assert calibrated.calibration["after"]["log_loss"] < calibrated.calibration["before"]["log_loss"]
    assert not plain.calibration


def test_each_validation_row_is_calibrated_without_itself() -> None:
    probability, y = overconfident(n=60)
    out_of_fold = calibration.cross_calibrate("isotonic", probability, y, seed=0)
    in_sample = calibration.fit_calibrator("isotonic", probability, y).predict_proba(probability)
    names = np.array(["a", "b"])
    assert calibration.scores(out_of_fold, y, names)["brier"] > calibration.scores(in_sample, y, names)["brier"]


def test_too_few_validation_images_of_a_class_are_named() -> None:
    probability, y = overconfident(n=50)
    y[:] = "a"
    y[0] = "b"
    with pytest.raises(InputError, match="temperature needs at least 2 validation images .*; got 1 of b"):
        calibration.cross_calibrate("temperature", probability, y, seed=0)


def test_a_class_whose_validation_images_are_all_from_one_group_is_named() -> None:
    probability, _ = overconfident(n=50)
    y, group = np.repeat(["a", "b"], [45, 5]), np.array([*range(45), *[45] * 5])
    with pytest.raises(InputError, match="from two groups where there are groups; got 5 of b"):
        calibration.cross_calibrate("sigmoid", probability, y, seed=0, origin=np.column_stack([np.arange(50), group]))
