"""What heads do to features before they classify them, as ONNX operators: rows (N, D) -> rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.serving.export.graph import Graph, Value
from pipeline.serving.export.inconvertible import require


def standard(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Subtract the mean and divide by the standard deviation."""
    if fitted.mean_ is not None and fitted.with_mean:
        rows = graph.add("Sub", rows, fitted.mean_)
    return graph.add("Div", rows, fitted.scale_) if fitted.scale_ is not None else rows


def unit_norm(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Scale every row to length 1; a row of zeros stays as it is."""
    require(fitted, norm="l2")
    return unit_length(graph, rows)


def unit_length(graph: Graph, rows: Value) -> Value:
    """Scale every row to length 1; a row of zeros stays as it is."""
    length = graph.add("Sqrt", graph.sum(graph.add("Mul", rows, rows)))
    return graph.add("Div", rows, graph.add("Where", graph.add("Equal", length, 0.0), 1.0, length))


def power(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Yeo & Johnson (2000), eq. 2.1; each half is computed with the other half's values set to 0."""
    require(fitted, method="yeo-johnson")
    above = _half(graph, graph.add("Max", rows, 0.0), fitted.lambdas_)
    below = _half(graph, graph.add("Neg", graph.add("Min", rows, 0.0)), 2 - fitted.lambdas_)
    changed = graph.add("Sub", above, below)
    return standard(graph, fitted._scaler, changed) if fitted.standardize else changed


def _half(graph: Graph, rows: Value, exponent: Any) -> Value:  # noqa: ANN401
    """Return ((rows + 1)^exponent - 1) / exponent, and log(rows + 1) where the exponent is 0."""
    zero = np.abs(exponent) < np.finfo(np.float64).eps
    raised, safe = graph.add("Add", rows, 1.0), np.where(zero, 1.0, exponent)
    powers = graph.add("Div", graph.add("Sub", graph.add("Pow", raised, safe), 1.0), safe)
    return graph.add("Where", zero, graph.add("Log", raised), powers) if zero.any() else powers


def components(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Project on principal components."""
    weight = fitted.components_.T.astype(np.float64)
    bias = -(fitted.mean_.astype(np.float64) @ weight)
    if fitted.whiten:
        scale = np.sqrt(fitted.explained_variance_)
        scale = np.maximum(scale, np.finfo(scale.dtype).eps)
        weight, bias = weight / scale, bias / scale
    return graph.linear(rows, weight, bias)


def nystroem(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Approximate the radial basis function."""
    require(fitted, kernel="rbf")
    gamma = 1 / fitted.components_.shape[1] if fitted.gamma is None else fitted.gamma
    kernel = radial(graph, rows, fitted.components_, gamma)
    return graph.add("MatMul", kernel, np.ascontiguousarray(fitted.normalization_.T))


def radial(graph: Graph, rows: Value, others: Any, gamma: float) -> Value:  # noqa: ANN401
    """Return exp(-gamma ||x - y||^2) of rows (N, D) and others (m, D): (N, m)."""
    return graph.add("Exp", graph.add("Mul", graph.squared_distances(rows, others), -float(gamma)))


TRANSFORMS: Mapping[str, Callable[[Graph, Any, Value], Value]] = {
    "StandardScaler": standard,
    "Normalizer": unit_norm,
    "PowerTransformer": power,
    "PCA": components,
    "Nystroem": nystroem,
}
