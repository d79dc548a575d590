"""HEADS: name -> factory of an unfitted scikit-learn classifier, preprocessing included.

To add a head: write a factory whose keyword arguments are what params.yaml may set, decorate it, and enter it in
params.yaml. Factories import what they need themselves, so that a head pays for nothing it does not use. What a
classifier lacks is added here: preprocessing in front of it, and probabilities if it only has scores.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from pipeline.core.errors import unknown
from pipeline.core.params import Scalar
from pipeline.heads import preprocessing
from pipeline.heads.training import FOLDS
from pipeline.heads.types import Classifier, Factory

Members = Mapping[str, Mapping[str, Scalar]]
"""Heads inside a head: a name for each, and its settings with an optional `kind`."""

_REGISTRY: dict[str, Factory] = {}
HEADS: Mapping[str, Factory] = _REGISTRY
_STREAMING: set[str] = set()
_SIMPLER: dict[str, Mapping[str, bool]] = {}

MORE, LESS = True, False
"""Which way a setting makes a head simpler."""


def bare(model: Classifier) -> Classifier:
    """Return what decides: a head without the temperature that makes probabilities of its scores."""
    return getattr(model, "estimator", model) if "cv" in model.get_params(deep=False) else model


def _head(
    scale: str = "standard", *, streams: bool = False, simpler: Mapping[str, bool] | None = None
) -> Callable[[Factory], Factory]:
    """Register a factory.

    Args:
        scale: what suits it unless params.yaml says otherwise.
        streams: whether it trains from the file, block by block.
        simpler: its numbers, the most telling first, and whether MORE or LESS of each makes it simpler: among heads
            within one standard error of the best the simplest is taken. Others stay in the order of params.yaml.

    """
    own = {
        "scale": inspect.Parameter("scale", inspect.Parameter.KEYWORD_ONLY, default=scale),
        "components": inspect.Parameter("components", inspect.Parameter.KEYWORD_ONLY, default=None),
        "whiten": inspect.Parameter("whiten", inspect.Parameter.KEYWORD_ONLY, default=False),
    }

    def register(build: Factory) -> Factory:
        @wraps(build)
        def factory(*, seed: int = 0, **settings: Any) -> Classifier:  # noqa: ANN401  # what params.yaml may hold
            before = {key: settings.pop(key, parameter.default) for key, parameter in own.items()}
            return _whole(preprocessing.steps(seed=seed, **before), build(seed=seed, **settings), seed)

        name = build.__name__
        _SIMPLER[name] = {**(simpler or {}), **({} if streams else {"components": LESS})}
        if streams:
            _STREAMING.add(name)
            _REGISTRY[name] = build
            return build
        signature = inspect.signature(build)
        parameters = list(signature.parameters.values())
        at = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
        factory.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what inspect.signature looks for
            parameters=[*parameters[:at], *own.values(), *parameters[at:]]
        )
        _REGISTRY[name] = factory
        return factory

    return register


def _whole(before: list[Classifier], classifier: Classifier, seed: int) -> Classifier:
    """Put preprocessing in front, and a temperature (Guo et al. 2017) behind a classifier that has scores only.

    It is fitted on cross-validated scores of the training data; the classifier itself sees all of it. Unlike Platt's
    sigmoid it leaves every decision as it is: a search may score the classifier alone, and class weights stay in force.
    """
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    model = make_pipeline(*before, classifier)
    if hasattr(classifier, "predict_proba"):
        return model
    from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)  # `training` deals them by image and group
    return CalibratedClassifierCV(model, method="temperature", ensemble=False, cv=folds)


def streams(kind: str) -> bool:
    """Return whether a kind of head trains from the file, block by block."""
    return kind in _STREAMING


def simpler(kind: str) -> Mapping[str, bool]:
    """Return the numbers that order a kind of head by simplicity, and whether more of each is simpler."""
    return _SIMPLER[kind]


def settings_of(kind: str, entry: Mapping[str, object]) -> set[str]:
    """Return what params.yaml may set for a kind of head, beside `kind`; ValueError if it names no class."""
    names = set(inspect.signature(HEADS[kind]).parameters) - {"seed"}
    if kind != "sklearn_class":
        return names
    of_class = inspect.signature(_classifier_class(str(entry.get("class_name", GAUSSIAN)))).parameters
    return names - {"settings"} | set(of_class) - {"random_state"}


# --- Linear ------------------------------------------------------------------------------------------------------


@_head(simpler={"C": LESS})
def logreg(
    *, seed: int = 0, C: float = 1.0, max_iter: int = 100, tol: float = 1e-3, class_weight: str | None = None
) -> Classifier:
    """Logistic regression by Newton's method; `C: sweep` tries the 45 values of the published probe protocol."""
    del seed  # nothing is random
    from pipeline.heads.logistic import Logistic  # noqa: PLC0415

    return Logistic(C=C, max_iter=max_iter, tol=tol, class_weight=class_weight)


@_head(simpler={"alpha": MORE})
def ridge(*, seed: int = 0, alpha: float = 1.0, class_weight: str | None = None) -> Classifier:
    """Ridge regression on the classes, with probabilities by a temperature."""
    from sklearn.linear_model import RidgeClassifier  # noqa: PLC0415

    return RidgeClassifier(alpha=alpha, class_weight=class_weight, random_state=seed)


@_head(simpler={"shrinkage": MORE})
def lda(*, seed: int = 0, shrinkage: float | str | None = "auto") -> Classifier:
    """Linear discriminant analysis; `auto` shrinks the covariance as Ledoit & Wolf (2004) do."""
    del seed
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: PLC0415

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


@_head(simpler={"C": LESS})
def linear_svm(*, seed: int = 0, C: float = 1.0, max_iter: int = 5000, class_weight: str | None = None) -> Classifier:
    """Linear support vector machine, with probabilities by a temperature."""
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    return LinearSVC(C=C, max_iter=max_iter, class_weight=class_weight, random_state=seed)


# --- Kernels and distances ---------------------------------------------------------------------------------------


@_head(simpler={"C": LESS, "gamma": LESS})
def rbf_svm(
    *, seed: int = 0, C: float = 1.0, gamma: float | str = "scale", class_weight: str | None = None
) -> Classifier:
    """Support vector machine with a radial basis function, with probabilities by a temperature."""
    from sklearn.svm import SVC  # noqa: PLC0415

    return SVC(C=C, gamma=gamma, class_weight=class_weight, random_state=seed)


@_head(simpler={"C": LESS, "gamma": LESS, "landmarks": LESS})
def nystroem_svm(
    *, seed: int = 0, C: float = 1.0, gamma: float | None = None, landmarks: int = 1000, max_iter: int = 5000,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Support vector machine on a Nystroem approximation of the radial basis function: for more rows than `rbf_svm`."""
    from sklearn.kernel_approximation import Nystroem  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    kernel = Nystroem(gamma=gamma, n_components=landmarks, random_state=seed)
    return make_pipeline(kernel, _REGISTRY["linear_svm"].__wrapped__(  # type: ignore[attr-defined]
        seed=seed, C=C, max_iter=max_iter, class_weight=class_weight
    ))  # fmt: skip


@_head(simpler={"n_neighbors": MORE})
def knn(*, seed: int = 0, n_neighbors: int = 5, weights: str = "uniform", metric: str = "cosine") -> Classifier:
    """Nearest neighbours."""
    del seed
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    return KNeighborsClassifier(n_neighbors=n_neighbors, weights=weights, metric=metric, algorithm="brute")


@_head(simpler={"shrink_threshold": MORE})
def nearest_mean(*, seed: int = 0, shrink_threshold: float | None = None) -> Classifier:
    """Nearest class mean; probabilities by the distances under equal variances (Tibshirani et al. 2002)."""
    del seed
    from sklearn.neighbors import NearestCentroid  # noqa: PLC0415

    return NearestCentroid(shrink_threshold=shrink_threshold)


# --- Trees -------------------------------------------------------------------------------------------------------


@_head("none", simpler={"min_samples_leaf": MORE, "max_features": LESS, "n_estimators": LESS})
def random_forest(
    *, seed: int = 0, n_estimators: int = 300, max_features: float | str = "sqrt", min_samples_leaf: int = 1,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Random forest."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return RandomForestClassifier(
        n_estimators=n_estimators,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        class_weight=class_weight,
        random_state=seed,
        n_jobs=-1,
    )


@_head("none", simpler={"min_samples_leaf": MORE, "max_features": LESS, "n_estimators": LESS})
def extra_trees(
    *, seed: int = 0, n_estimators: int = 300, max_features: float | str = "sqrt", min_samples_leaf: int = 1,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415

    return ExtraTreesClassifier(
        n_estimators=n_estimators,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        class_weight=class_weight,
        random_state=seed,
        n_jobs=-1,
    )


@_head(
    "none",
    simpler={
        "max_leaf_nodes": LESS,
        "min_samples_leaf": MORE,
        "max_iter": LESS,
        "learning_rate": LESS,
        "max_features": LESS,
    },
)
def gradient_boosting(
    *, seed: int = 0, learning_rate: float = 0.1, max_iter: int = 100, max_leaf_nodes: int = 31,
    min_samples_leaf: int = 20, max_features: float = 1.0, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Gradient boosting on histograms of the features."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        max_iter=max_iter,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        class_weight=class_weight,
        early_stopping=False,  # which would hold out rows, not images
        random_state=seed,
    )


# --- Networks ----------------------------------------------------------------------------------------------------


@_head(simpler={"hidden": LESS, "weight_decay": MORE, "dropout": MORE, "epochs": LESS})
def mlp(
    *, seed: int = 0, hidden: int = 128, dropout: float = 0.5, learning_rate: float = 1e-3, weight_decay: float = 1e-2,
    epochs: int = 100, patience: int = 10, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Multi-layer perceptron with one hidden layer, stopped early; trained by PyTorch."""
    from pipeline.networks.mlp import MLPHead  # noqa: PLC0415

    return MLPHead(
        hidden=hidden,
        dropout=dropout,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        patience=patience,
        class_weight=class_weight,
        random_state=seed,
    )


@_head(streams=True, simpler={"weight_decay": MORE, "epochs": LESS})
def streaming_linear(
    *, seed: int = 0, learning_rate: float = 3e-3, weight_decay: float = 1e-4, epochs: int = 5,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Logistic regression trained straight from the file, for a matrix larger than memory; standardises by itself."""
    from pipeline.networks.streaming import StreamingHead  # noqa: PLC0415

    return StreamingHead(
        hidden=0,
        dropout=0.0,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        class_weight=class_weight,
        random_state=seed,
    )


@_head(streams=True, simpler={"hidden": LESS, "weight_decay": MORE, "dropout": MORE, "epochs": LESS})
def streaming_mlp(
    *, seed: int = 0, hidden: int = 256, dropout: float = 0.5, learning_rate: float = 1e-3, weight_decay: float = 1e-2,
    epochs: int = 5, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Multi-layer perceptron trained straight from the file, for a matrix larger than memory."""
    from pipeline.networks.streaming import StreamingHead  # noqa: PLC0415

    if hidden < 1:
        raise ValueError(f"hidden: got {hidden}, expected at least 1; without a hidden layer it is `streaming_linear`")
    return StreamingHead(
        hidden=hidden,
        dropout=dropout,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        class_weight=class_weight,
        random_state=seed,
    )


# --- Ensembles ---------------------------------------------------------------------------------------------------

_MEMBERS: Members = {"logreg": {"C": 0.01}, "nearest_mean": {}}


def build(kind: str, seed: int, settings: Mapping[str, Any]) -> Classifier:
    """Return the unfitted classifier of a kind of head."""
    return HEADS[kind](seed=seed, **settings)


def _built(members: Members, seed: int) -> list[tuple[str, Classifier]]:
    return [
        (name, build(str(entry.get("kind", name)), seed, {key: one for key, one in entry.items() if key != "kind"}))
        for name, entry in members.items()
    ]


@_head("none")
def voting(*, seed: int = 0, members: Members = _MEMBERS) -> Classifier:
    """Mean of other heads' probabilities."""
    from pipeline.heads.ensembles import Voting  # noqa: PLC0415

    return Voting(_built(members, seed))


@_head("none", simpler={"C": LESS})
def stacking(*, seed: int = 0, members: Members = _MEMBERS, C: float = 1.0, folds: int = 5) -> Classifier:
    """Logistic regression on other heads' cross-validated probabilities (Wolpert 1992)."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    from pipeline.heads.ensembles import Stacking  # noqa: PLC0415

    return Stacking(_built(members, seed), LogisticRegression(C=C, max_iter=1000), folds=folds, random_state=seed)


# --- Any other ---------------------------------------------------------------------------------------------------

GAUSSIAN = "sklearn.naive_bayes.GaussianNB"


@_head()
def sklearn_class(*, seed: int = 0, class_name: str = GAUSSIAN, **settings: Scalar) -> Classifier:
    """Any classifier of scikit-learn by the name of its class, with its own parameters."""
    chosen = _classifier_class(class_name)
    taken = inspect.signature(chosen).parameters
    fixed: dict[str, Scalar] = {"random_state": seed} if "random_state" in taken else {}
    if "early_stopping" in taken:
        fixed["early_stopping"] = False
    _require_no_split_by_rows(chosen, settings)
    return chosen(**{**fixed, **settings})


def _require_no_split_by_rows(chosen: Any, settings: Mapping[str, Scalar]) -> None:  # noqa: ANN401  # a class
    """Refuse what would put views of one image, or images of one group, on both sides of a split of its own."""
    taken, why = inspect.signature(chosen).parameters, "for it splits rows by itself, not images and groups"
    for key in ("early_stopping", "probability"):
        if settings.get(key):
            raise ValueError(f"{key}: got {settings[key]!r}, expected false, {why}")
    if "early_stopping" not in taken and "validation_fraction" in taken and settings.get("n_iter_no_change"):
        raise ValueError(f"n_iter_no_change: got {settings['n_iter_no_change']!r}, expected null, {why}")
    if "cv" in taken and not hasattr(chosen, "predict_proba"):
        raise ValueError(f"class_name: got {chosen.__name__!r}, expected one without `cv`, {why}; a list is searched")


def _classifier_class(name: str) -> type:
    """Find a public classifier of scikit-learn; nothing outside its namespace is ever imported."""
    if re.fullmatch(r"sklearn(\.[a-z][a-z0-9_]*)+\.[A-Z]\w*", name):
        module, _, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
        if isinstance(found, type) and found.__module__.startswith("sklearn.") and _is_classifier(found):
            return found
    raise ValueError(unknown("class_name", name, _public_classifiers()))


def _is_classifier(found: type) -> bool:
    from sklearn.base import ClassifierMixin  # noqa: PLC0415

    return issubclass(found, ClassifierMixin)


def _public_classifiers() -> list[str]:
    from sklearn.utils import all_estimators  # noqa: PLC0415

    return [
        re.sub(r"\._.*", "", found.__module__) + "." + name for name, found in all_estimators(type_filter="classifier")
    ]
