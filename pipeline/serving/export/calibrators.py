"""scikit-learn's calibrators as ONNX operators: scores or probabilities -> probabilities (N, K)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from pipeline.serving.export.graph import Graph, Value
from pipeline.serving.export.inconvertible import inconvertible

FLOOR = 1e-12
"""What scikit-learn adds to probabilities before taking their logarithm."""


def logarithm(graph: Graph, probability: Value) -> Value:
    """Take the logarithm of probabilities (N, K)."""
    return graph.add("Log", graph.add("Add", probability, FLOOR))


def temperature(graph: Graph, fitted: Any, logits: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Divide logits (N, K) by one number."""
    return graph.add("Softmax", graph.add("Mul", logits, float(fitted.beta_)), axis=1)


def one_vs_rest(graph: Graph, calibrators: Sequence[Any], scores: Value) -> Value:
    """Calibrate each class against the rest, (N, K), or the second of two classes, (N, 1)."""
    columns = [graph.columns(scores, number, number + 1) for number in range(len(calibrators))]
    calibrated = [_calibrate(graph, fitted, column) for fitted, column in zip(calibrators, columns, strict=True)]
    if len(calibrated) == 1:
        return graph.two_classes(calibrated[0])
    joined = graph.concat(calibrated)
    total = graph.sum(joined)
    all_zero = graph.add("Equal", total, 0.0)
    shares = graph.add("Div", joined, graph.add("Where", all_zero, 1.0, total))
    return graph.add("Where", all_zero, 1 / len(calibrated), shares)


def _calibrate(graph: Graph, fitted: Any, score: Value) -> Value:  # noqa: ANN401
    if type(fitted).__name__ == "_SigmoidCalibration":
        inside = graph.add("Add", graph.add("Mul", score, float(fitted.a_)), float(fitted.b_))
        return graph.add("Sigmoid", graph.add("Neg", inside))
    if type(fitted).__name__ == "IsotonicRegression":
        return _interpolate(graph, fitted, score)
    raise inconvertible(fitted)


def _interpolate(graph: Graph, fitted: Any, score: Value) -> Value:  # noqa: ANN401
    """Interpolate between the thresholds of an isotonic regression; beyond them it is constant."""
    x, y = fitted.X_thresholds_.astype(np.float64), fitted.y_thresholds_.astype(np.float64)
    if len(x) == 1:
        x, y = np.array([x[0], x[0] + 1]), np.repeat(y, 2)
    inside = graph.add("Min", graph.add("Max", score, float(x[0])), float(x[-1]))
    passed = graph.add("Cast", graph.add("GreaterOrEqual", inside, x[None, 1:]), to=TensorProto.INT64)
    step = graph.add("Min", graph.sum(passed), np.array(len(x) - 2))
    slope = graph.add("Gather", graph.constant(np.diff(y) / np.diff(x)), step, axis=0)
    left, low = (graph.add("Gather", graph.constant(values[:-1]), step, axis=0) for values in (x, y))
    return graph.add("Add", low, graph.add("Mul", graph.add("Sub", inside, left), slope))
