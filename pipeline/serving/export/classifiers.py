"""Classifiers as ONNX operators: rows (N, D) -> probabilities (N, K)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from pipeline.serving.export import scores, trees
from pipeline.serving.export.graph import Graph, Value
from pipeline.serving.export.inconvertible import inconvertible, require
from pipeline.serving.export.transforms import unit_length


def logistic(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Weigh the features; a sigmoid for two classes, else softmax."""
    return of_logits(graph, scores.linear(graph, fitted, rows), len(fitted.classes_))


def of_logits(graph: Graph, logits: Value, classes: int) -> Value:
    """Turn logits (N, K), or (N, 1) for two classes, into probabilities (N, K)."""
    return graph.two_classes(graph.add("Sigmoid", logits)) if classes == 2 else graph.add("Softmax", logits, axis=1)


def dense(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Run a network of at most one hidden layer."""
    for layer in ("hidden", "output"):
        if f"{layer}_weight" in fitted.weights_:
            weight, bias = fitted.weights_[f"{layer}_weight"], fitted.weights_[f"{layer}_bias"]
            rows = graph.linear(rows, np.ascontiguousarray(weight.T), bias)
            rows = graph.add("Relu", rows) if layer == "hidden" else rows
    return graph.add("Softmax", rows, axis=1)


def nearest_mean(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Softmax of -||x - c||^2 + 2 log p, in units of the spread; ||x||^2 is left out, for softmax does not see it."""
    require(fitted, metric="euclidean")
    spread = np.where(fitted.within_class_std_dev_ == 0, 1, fitted.within_class_std_dev_)
    means = fitted.centroids_ / spread
    bias = 2 * np.log(fitted.class_prior_) - (means**2).sum(axis=1)
    return graph.add("Softmax", graph.linear(rows, np.ascontiguousarray((2 * means / spread).T), bias), axis=1)


def neighbours(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Let the nearest training rows vote."""
    distance = _distances(graph, fitted, rows)
    names = [f"head/nearest_{len(graph.nodes)}", f"head/neighbour_{len(graph.nodes)}"]
    graph.add_node("TopK", [distance, graph.constant(np.array([fitted.n_neighbors]))], names, axis=1, largest=0)
    votes = graph.add("Gather", graph.constant(np.eye(len(fitted.classes_))[fitted._y]), names[1], axis=0)
    if fitted.weights == "distance":
        same = graph.add("Cast", graph.add("Equal", names[0], 0.0), to=TensorProto.DOUBLE)
        any_same = graph.add("Greater", graph.sum(same), 0.0)
        weights = graph.add("Where", any_same, same, graph.add("Div", 1.0, names[0]))
        votes = graph.add("Mul", votes, graph.add("Unsqueeze", weights, np.array([2])))
    elif fitted.weights != "uniform":
        raise inconvertible(fitted, f" with weights={fitted.weights}")
    return graph.normalise(graph.add("ReduceSum", votes, np.array([1]), keepdims=0))


def _distances(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    if fitted.metric == "cosine":
        length = np.linalg.norm(fitted._fit_X, axis=1, keepdims=True)
        others = fitted._fit_X / np.where(length == 0, 1, length)
        product = graph.add("MatMul", unit_length(graph, rows), np.ascontiguousarray(others.T))
        return graph.add("Max", graph.add("Sub", 1.0, product), 0.0)
    if fitted.metric == "euclidean" or (fitted.metric == "minkowski" and fitted.p == 2):
        return graph.add("Sqrt", graph.squared_distances(rows, fitted._fit_X))
    raise inconvertible(fitted, f" with metric={fitted.metric}")


def gaussian(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Softmax of log-likelihoods under independent normal distributions, multiplied out."""
    mean, variance = fitted.theta_, fitted.var_
    bias = np.log(fitted.class_prior_) - 0.5 * (np.log(2 * np.pi * variance) + mean**2 / variance).sum(axis=1)
    squares = graph.add("MatMul", graph.add("Mul", rows, rows), np.ascontiguousarray((-0.5 / variance).T))
    logits = graph.add("Add", squares, graph.linear(rows, np.ascontiguousarray((mean / variance).T), bias))
    return graph.add("Softmax", logits, axis=1)


def boosted(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Add trees up; a sigmoid for two classes, else softmax."""
    raw = trees.sum_of(graph, trees.of_boosting(fitted), rows, fitted.n_trees_per_iteration_)
    return of_logits(graph, graph.add("Add", raw, fitted._baseline_prediction.ravel()), len(fitted.classes_))


def forest(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Average trees, or take the only one."""
    return graph.normalise(trees.sum_of(graph, trees.of_forest(fitted), rows, len(fitted.classes_)))


CLASSIFIERS: Mapping[str, Callable[[Graph, Any, Value], Value]] = {
    **dict.fromkeys(("Logistic", "LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis"), logistic),
    **dict.fromkeys(("MLPHead", "StreamingHead"), dense),
    "NearestCentroid": nearest_mean,
    "KNeighborsClassifier": neighbours,
    "GaussianNB": gaussian,
    "HistGradientBoostingClassifier": boosted,
    **dict.fromkeys(
        ("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier", "ExtraTreeClassifier"), forest
    ),
}
