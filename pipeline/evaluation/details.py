"""What a single score hides, with intervals: precision and recall by class, confusion, accuracy by confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import clusters
from pipeline.evaluation.comparison import Estimate, Resampled, Right
from pipeline.evaluation.scoring import breakdown
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Predictions


def describe(predictions: Predictions, resampled: Resampled, run: int) -> dict[str, Any]:
    """Return precision and recall by class, confusion and calibration of a run, all with intervals."""
    outcomes = Outcomes.of(predictions)
    return {
        "by_class": _by_class(outcomes, predictions.classes, resampled, run),
        **_confusion(outcomes, predictions.classes, resampled, run),
        "calibration": _calibration(outcomes, predictions, resampled, run),
    }


def _by_class(
    outcomes: Outcomes, classes: Sequence[str], resampled: Resampled, run: int
) -> dict[str, dict[str, Estimate]]:
    """Return precision and recall of every class that has test images."""
    once, images_of = np.ones((1, len(outcomes.truth))), {"recall": outcomes.truth, "precision": outcomes.decided}
    plain = {name: metric(once, outcomes)[0] for name, metric in breakdown.BY_CLASS.items()}
    right = outcomes.truth == outcomes.decided

    def estimate(name: str, k: int) -> Estimate:
        samples = resampled.by_class[name][run, :, k]
        return _estimate(float(plain[name][k]), right, images_of[name] == k, samples, resampled)

    return {classes[k]: {name: estimate(name, k) for name in plain} for k in np.unique(outcomes.truth).tolist()}


def _confusion(outcomes: Outcomes, classes: Sequence[str], resampled: Resampled, run: int) -> dict[str, Any]:
    """Return the pairs of true and decided class, and how many pairs and images are left out."""
    pairs, shares = resampled.confusion[run]
    plain = breakdown.confusion_shares(np.ones((1, len(outcomes.truth))), outcomes, pairs)[0]
    every, of_each = outcomes.pairs
    images_of = dict(zip(map(tuple, every.tolist()), of_each.tolist(), strict=True))

    def share(number: int, true: int, decided: int) -> Estimate:
        of_class = outcomes.truth == true
        return _estimate(float(plain[number]), outcomes.decided == decided, of_class, shares[:, number], resampled)

    cells = [
        {
            "true": classes[true],
            "decided": classes[decided],
            "images": images_of[true, decided],
            "share": share(number, true, decided),
        }
        for number, (true, decided) in enumerate(pairs.tolist())
    ]
    images = len(outcomes.truth) - sum(images_of[true, decided] for true, decided in pairs.tolist())
    left_out = {"pairs": len(every) - len(pairs), "images": images}
    return {"confusion": cells, **({"confusion_left_out": left_out} if left_out["pairs"] else {})}


def _calibration(outcomes: Outcomes, predictions: Predictions, resampled: Resampled, run: int) -> list[dict[str, Any]]:
    """Return images, mean confidence and accuracy of every bin of confidence that is not empty."""
    images, confidence, right = breakdown.calibration_bins(predictions)

    def accuracy(number: int) -> Estimate:
        value, samples = float(right[number] / images[number]), resampled.bins[run][:, number]
        return _estimate(value, outcomes.likeliest_is_right, outcomes.bin == number, samples, resampled)

    return [
        {
            "images": int(images[number]),
            "confidence": float(confidence[number] / images[number]),
            "accuracy": accuracy(number),
        }
        for number in np.flatnonzero(images).tolist()
    ]


def _estimate(value: float, hits: Right, images: Right, samples: Floats, resampled: Resampled) -> Estimate:
    """Return a share of hits among some of the images, both (N,), with its interval; samples (B,)."""
    return Estimate(value, *clusters.share_interval(hits, images, samples, resampled.units))
