"""A fitted head as an ONNX graph: each of its parts is converted in turn."""

from collections.abc import Callable, Mapping
from typing import Any

from onnx import TensorProto

from pipeline.heads.types import Classifier
from pipeline.serving.export import calibrators, skl2onnx_fallback
from pipeline.serving.export.classifiers import CLASSIFIERS
from pipeline.serving.export.graph import Graph, Value
from pipeline.serving.export.inconvertible import inconvertible
from pipeline.serving.export.scores import SCORES
from pipeline.serving.export.transforms import TRANSFORMS


def graph_of(head: Classifier) -> Graph:
    """Return the operators from features (N, D) to the probabilities of `heads.predict`, (N, K) in float32.

    Raises:
        InconvertibleError: if a part of the head cannot be converted.

    """
    graph = Graph()
    rows = graph.add("Cast", "features", to=TensorProto.DOUBLE)
    shares = graph.normalise(probabilities(graph, head, rows))
    graph.add_node("Cast", [shares], ["probabilities"], to=TensorProto.FLOAT)
    return graph


def probabilities(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Add a classifier: rows (N, D) -> probabilities (N, K)."""
    convert = {**CLASSIFIERS, **_COMPOSED}.get(type(fitted).__name__)
    return convert(graph, fitted, rows) if convert else skl2onnx_fallback.probabilities(graph, fitted, rows)


def _pipeline(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    return probabilities(graph, fitted[-1], _before_last(graph, fitted, rows))


def _before_last(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    for _, step in fitted.steps[:-1]:
        if type(step).__name__ not in TRANSFORMS:
            raise inconvertible(step)
        rows = TRANSFORMS[type(step).__name__](graph, step, rows)
    return rows


def _scores(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Add a calibrator's input: scores if the classifier has them, else probabilities; of two classes the second."""
    name = type(fitted).__name__
    if name == "FrozenEstimator":
        return _scores(graph, fitted.estimator, rows)
    if name == "Pipeline":
        return _scores(graph, fitted[-1], _before_last(graph, fitted, rows))
    if name in SCORES:
        return SCORES[name](graph, fitted, rows)
    if hasattr(fitted, "decision_function"):
        raise inconvertible(fitted)
    found = rows if name == "Uncalibrated" else probabilities(graph, fitted, rows)
    return graph.columns(found, 1, 2) if len(fitted.classes_) == 2 else found


def _cross_validated(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    """Average scikit-learn's calibrated classifiers; the heads' own have one."""
    return _mean(graph, [_calibrated_one(graph, one, rows) for one in fitted.calibrated_classifiers_])


def _calibrated_one(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    scores = _scores(graph, fitted.estimator, rows)
    if fitted.method != "temperature":
        return calibrators.one_vs_rest(graph, fitted.calibrators, scores)
    if not hasattr(fitted.estimator, "decision_function"):
        shares = graph.two_classes(scores) if len(fitted.classes) == 2 else scores
        scores = calibrators.logarithm(graph, shares)
    elif len(fitted.classes) == 2:
        scores = graph.concat([graph.add("Neg", scores), scores])
    return calibrators.temperature(graph, fitted.calibrators[0], scores)


def _mean(graph: Graph, parts: list[Value]) -> Value:
    return parts[0] if len(parts) == 1 else graph.add("Mul", graph.add("Sum", *parts), 1 / len(parts))


def _calibrated(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    return probabilities(graph, fitted.calibrator, probabilities(graph, fitted.model, rows))


def _voting(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    return _mean(graph, [probabilities(graph, one, rows) for one in fitted.estimators_])


def _stacking(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401
    members = [probabilities(graph, one, rows) for one in fitted.estimators_]
    if len(fitted.classes_) == 2:
        members = [graph.columns(one, 1, 2) for one in members]
    return probabilities(graph, fitted.final_estimator_, graph.concat(members))


_COMPOSED: Mapping[str, Callable[[Graph, Any, Value], Value]] = {
    "Pipeline": _pipeline,
    "Calibrated": _calibrated,
    "CalibratedClassifierCV": _cross_validated,
    "Voting": _voting,
    "Stacking": _stacking,
}
