"""Made-up predictions."""

import numpy as np

from pipeline.evaluation.scoring.predictions import Predictions


def predictions(seed: int = 0, n: int = 60, classes: int = 3, skill: float = 1.0) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    logits = generator.normal(size=(n, classes)).round(1)  # rounding makes ties
    logits[np.arange(n), truth] += skill
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"c{k}" for k in range(classes)]
    return Predictions([str(i) for i in range(n)], ["test"] * n, [names[k] for k in truth], names, probability)
