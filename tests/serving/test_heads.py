"""One contract for every head that can be exported: the graph says what the head says."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from pipeline import heads
from pipeline.heads import HEADS
from pipeline.heads.calibration import Calibrated, fit_calibrator
from pipeline.heads.types import Classifier
from pipeline.networks import streaming
from pipeline.serving.export import heads as exported
from pipeline.serving.export import trees
from pipeline.serving.export.graph import append_to
from pipeline.serving.export.inconvertible import InconvertibleError
from tests.heads.examples import QUICK, data, fit

TOLERANCE = 1e-4
WIDTH = 24

every_head = pytest.mark.parametrize("name", list(HEADS))


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Let heads that stream pass over these few rows less often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "STEPS", 20)
        yield


def model_of(name: str, entry: dict[str, Any], classes: int) -> Classifier:
    X, y = data(classes, n=120, width=WIDTH)
    return fit(name, {**QUICK.get(name, {}), **entry}, X, y).model


@cache
def default(name: str, classes: int) -> Classifier:
    return model_of(name, {}, classes)


def calibrated(method: str, name: str, classes: int) -> Classifier:
    X, y = data(classes, n=120, width=WIDTH, seed=1)
    model = default(name, classes)
    return Calibrated(model, fit_calibrator(method, heads.predict(model, X), y))


def rows(number: int = 300) -> np.ndarray:
    """Return rows as they are stored: rounded to half precision."""
    drawn = np.random.default_rng(5).normal(scale=2, size=(number, WIDTH))
    return drawn.astype(np.float16).astype(np.float32)


def alone(model: Classifier) -> ModelProto:
    """Return a head behind a backbone that does nothing, as ONNX."""
    rows, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("rows", "features")
    )
    node = helper.make_node("Identity", ["rows"], ["features"])
    backbone = helper.make_model(helper.make_graph([node], "identity", [rows], [features]), ir_version=10)
    return append_to(backbone, exported.graph_of(model), len(model.classes_))


def require_parity(model: Classifier, X: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(alone(model).SerializeToString())
    (found,) = session.run(None, {"rows": X})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, heads.predict(model, X), atol=TOLERANCE)


@every_head
@pytest.mark.parametrize("classes", [2, 4])
def test_every_head_is_exported(name: str, classes: int) -> None:
    require_parity(default(name, classes), rows())


@every_head
@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
@pytest.mark.parametrize("classes", [2, 4])
def test_every_head_is_exported_with_every_calibration(name: str, method: str, classes: int) -> None:
    require_parity(calibrated(method, name, classes), rows())


@every_head
def test_batches_of_one_row_and_of_none_work(name: str) -> None:
    model = default(name, 4)
    require_parity(model, rows(1))
    session = onnxruntime.InferenceSession(alone(model).SerializeToString())
    assert session.run(None, {"rows": rows(0)})[0].shape == (0, 4)


@pytest.mark.parametrize(
    "entry",
    [
        {"scale": "none"},
        {"scale": "l2"},
        {"scale": "power"},
        {"components": 5},
        {"components": 0.9, "whiten": True},
        {"scale": "power", "components": 3},
    ],
)
def test_every_preprocessing_is_exported(entry: dict[str, Any]) -> None:
    require_parity(model_of("logreg", entry, 3), rows())


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("knn", {"metric": "euclidean", "weights": "distance"}),
        ("knn", {"metric": "cosine", "weights": "distance"}),
        ("rbf_svm", {"gamma": 0.01, "C": 10.0}),
        ("nystroem_svm", {"gamma": 0.01}),
        ("nearest_mean", {"shrink_threshold": 0.5}),
        ("random_forest", {"min_samples_leaf": 5}),
        ("gradient_boosting", {"max_leaf_nodes": 4}),
        ("mlp", {"hidden": 3}),
        ("voting", {"members": {"knn": {}, "ridge": {}, "random_forest": {"n_estimators": 3}}}),
        ("stacking", {"members": {"lda": {}, "rbf_svm": {}}, "folds": 2}),
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_settings_that_change_the_arithmetic_are_exported(name: str, entry: dict[str, Any], classes: int) -> None:
    require_parity(model_of(name, entry, classes), rows())


@pytest.mark.parametrize(
    "class_name",
    [
        "naive_bayes.GaussianNB",
        "naive_bayes.BernoulliNB",
        "neural_network.MLPClassifier",
        "ensemble.GradientBoostingClassifier",
        "ensemble.BaggingClassifier",
        "tree.DecisionTreeClassifier",
        "linear_model.LogisticRegression",
        "linear_model.SGDClassifier",
        "linear_model.Perceptron",
        "svm.SVC",
        "svm.LinearSVC",
        "calibration.CalibratedClassifierCV",
        "discriminant_analysis.QuadraticDiscriminantAnalysis",
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_other_classes_of_scikit_learn_are_exported(class_name: str, classes: int) -> None:
    require_parity(model_of("sklearn_class", {"class_name": f"sklearn.{class_name}"}, classes), rows())


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"class_name": "sklearn.semi_supervised.LabelSpreading"}, "LabelSpreading: has no converter"),
        ({"class_name": "sklearn.svm.SVC", "kernel": "poly"}, "SVC with kernel=poly: has no"),
        (
            {"class_name": "sklearn.neighbors.KNeighborsClassifier", "metric": "canberra"},
            "with metric=canberra: has no",
        ),
    ],
)
def test_a_head_that_cannot_be_exported_is_named_with_those_that_can(entry: dict[str, Any], named: str) -> None:
    model = model_of("sklearn_class", entry, 3)
    with pytest.raises(InconvertibleError, match=rf"{named}.*expected a head of one of the kinds logreg, ridge, lda"):
        exported.graph_of(model)


def test_equal_heads_give_equal_bytes() -> None:
    one, two = (alone(model_of("stacking", {}, 3)).SerializeToString(deterministic=True) for _ in "ab")
    assert one == two


def test_a_threshold_keeps_every_float32_on_its_side() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=1000).astype(np.float32)
    thresholds = np.concatenate([x.astype(np.float64), (x[1:].astype(np.float64) + x[:-1]) / 2, [0.1, -0.1, 1e-45]])
    narrow = trees.rounded_down(thresholds)
    assert narrow.dtype == np.float32
    np.testing.assert_array_equal(x[:, None] <= narrow, x[:, None].astype(np.float64) <= thresholds)
