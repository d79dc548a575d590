"""Classifiers with scores only, as ONNX operators: rows (N, D) -> scores (N, K), or (N, 1) for two classes."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.serving.export.graph import Array, Graph, Value
from pipeline.serving.export.inconvertible import inconvertible
from pipeline.serving.export.transforms import radial


def linear(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Weigh the features."""
    return graph.linear(rows, np.ascontiguousarray(np.atleast_2d(fitted.coef_).T), np.atleast_1d(fitted.intercept_))


def support_vectors(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Compare with the support vectors; more than two classes vote in pairs (scikit-learn's `ovr` of libsvm's)."""
    if fitted.kernel == "rbf":
        kernel = radial(graph, rows, fitted.support_vectors_, fitted._gamma)
    elif fitted.kernel == "linear":
        kernel = graph.add("MatMul", rows, np.ascontiguousarray(fitted.support_vectors_.T))
    else:
        raise inconvertible(fitted, f" with kernel={fitted.kernel}")
    if len(fitted.classes_) == 2:
        return graph.linear(kernel, np.ascontiguousarray(fitted.dual_coef_.T), fitted.intercept_)
    pairs = list(combinations(range(len(fitted.classes_)), 2))
    duels = graph.linear(kernel, _of_pairs(fitted, pairs), fitted.intercept_)
    first, second = (np.eye(len(fitted.classes_))[[pair[side] for pair in pairs]] for side in (0, 1))
    lost = graph.add("Where", graph.add("Less", duels, 0.0), 1.0, 0.0)
    votes = graph.linear(lost, second - first, first.sum(axis=0))
    sure = graph.add("MatMul", duels, first - second)
    limited = graph.add("Div", sure, graph.add("Mul", graph.add("Add", graph.add("Abs", sure), 1.0), 3.0))
    return graph.add("Add", votes, limited)


def _of_pairs(fitted: Any, pairs: list[tuple[int, int]]) -> Array:  # noqa: ANN401
    """Return each support vector's weight in each duel of two classes, (m, pairs), out of libsvm's `dual_coef_`."""
    ends = np.cumsum([0, *fitted.n_support_])
    weights = np.zeros((ends[-1], len(pairs)))
    for number, (one, other) in enumerate(pairs):
        mine, its = slice(ends[one], ends[one + 1]), slice(ends[other], ends[other + 1])
        weights[mine, number] = fitted.dual_coef_[other - 1, mine]
        weights[its, number] = fitted.dual_coef_[one, its]
    return weights


SCORES: Mapping[str, Callable[[Graph, Any, Value], Value]] = {
    **dict.fromkeys(("LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier", "Perceptron"), linear),
    "SVC": support_vectors,
}
