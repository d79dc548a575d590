"""HEADS: name -> factory of an unfitted scikit-learn classifier; and choosing, saving and loading one.

To add a head: write a factory whose keyword arguments are what params.yaml may set, decorate it, and enter it in
params.yaml. Factories import what they need themselves, so that a head pays for nothing it does not use.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline import evaluation, stamps
from pipeline.atomic import replacing
from pipeline.errors import InputError, StateError, unknown
from pipeline.imports import import_without
from pipeline.params import HeadEntry, Scalar, Selection

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.str_]
Ints = npt.NDArray[np.integer[Any]]
Classifier = Any
"""A scikit-learn classifier; the library has no types."""
Factory = Callable[..., Classifier]

_REGISTRY: dict[str, Factory] = {}
HEADS: Mapping[str, Factory] = _REGISTRY


def _head(factory: Factory) -> Factory:
    _REGISTRY[factory.__name__] = factory
    return factory


def _scaled(classifier: Classifier) -> Classifier:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), classifier)


def _with_probabilities(classifier: Classifier, seed: int) -> Classifier:
    """Add Platt's sigmoid, fitted on cross-validated scores of the training data; the classifier itself sees all."""
    from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415

    return CalibratedClassifierCV(classifier, method="sigmoid", ensemble=False, cv=_folds(5, seed))


def _folds(number: int, seed: int) -> Any:  # noqa: ANN401  # a splitter of scikit-learn
    """Shuffled: files often lie in an order that means something, and unshuffled folds would then differ in kind."""
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    return StratifiedKFold(number, shuffle=True, random_state=seed)


@_head
def logreg(*, seed: int = 0, C: float = 1.0, max_iter: int = 2000) -> Classifier:
    """Logistic regression, L-BFGS."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    return _scaled(LogisticRegression(C=C, max_iter=max_iter, random_state=seed))


@_head
def linear_svm(*, seed: int = 0, C: float = 1.0, max_iter: int = 5000) -> Classifier:
    """Linear support vector machine, with probabilities by Platt's sigmoid."""
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    return _with_probabilities(_scaled(LinearSVC(C=C, max_iter=max_iter, random_state=seed)), seed)


@_head
def rbf_svm(*, seed: int = 0, C: float = 1.0, gamma: float | str = "scale") -> Classifier:
    """Support vector machine with a radial basis function, with probabilities by Platt's sigmoid."""
    from sklearn.svm import SVC  # noqa: PLC0415

    return _with_probabilities(_scaled(SVC(C=C, gamma=gamma, random_state=seed)), seed)


@_head
def knn(*, seed: int = 0, n_neighbors: int = 5, weights: str = "uniform", metric: str = "euclidean") -> Classifier:
    """Nearest neighbours; no seed changes anything."""
    del seed
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    return _scaled(KNeighborsClassifier(n_neighbors=n_neighbors, weights=weights, metric=metric, algorithm="brute"))


@_head
def random_forest(
    *, seed: int = 0, n_estimators: int = 300, max_features: float | str = "sqrt", min_samples_leaf: int = 1
) -> Classifier:
    """Random forest."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return _scaled(
        RandomForestClassifier(
            n_estimators=n_estimators,
            max_features=max_features,
            min_samples_leaf=min_samples_leaf,
            random_state=seed,
            n_jobs=-1,
        )
    )


@_head
def mlp(
    *, seed: int = 0, hidden: int = 128, dropout: float = 0.5, learning_rate: float = 1e-3, weight_decay: float = 1e-2,
    epochs: int = 100,
) -> Classifier:  # fmt: skip
    """Multi-layer perceptron with one hidden layer, trained by PyTorch."""
    from pipeline.nn.mlp import MLPHead  # noqa: PLC0415

    return _scaled(
        MLPHead(
            hidden=hidden,
            dropout=dropout,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epochs=epochs,
            random_state=seed,
        )
    )


# --- Choosing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One setting of the searched hyper-parameters and its score on each fold; no scores if there was no choice."""

    params: Mapping[str, Scalar]
    scores: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The mean score over the folds."""
        return float(np.mean(self.scores)) if self.scores else float("nan")


@dataclass(frozen=True)
class Chosen:
    """A fitted head, what was chosen for it and from what."""

    model: Classifier
    params: Mapping[str, Scalar]
    candidates: tuple[Candidate, ...]
    unconverged: int
    """Fits that stopped at their iteration limit."""


def check(name: str, entry: HeadEntry) -> list[str]:
    """Return what is wrong with a head's entry in params.yaml, one line each."""
    kind = str(entry.get("kind", name))
    if kind not in HEADS:
        return [unknown(f"params.yaml: heads.{name}", kind, HEADS)]
    valid = set(inspect.signature(HEADS[kind]).parameters) - {"seed"}
    where = f"params.yaml: heads.{name}: unknown key"
    problems = [unknown(where, key, valid) for key in entry if key not in valid | {"kind"}]
    return problems + [
        f"params.yaml: heads.{name}.{key}: got an empty list, expected values to choose from"
        for key, value in entry.items()
        if value == []
    ]


def candidates_of(entry: HeadEntry) -> list[dict[str, Scalar]]:
    """Expand an entry (a scalar is fixed, a list is searched) into every combination, in the file's order."""
    choices = {key: value if isinstance(value, list) else [value] for key, value in entry.items() if key != "kind"}
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def fit(
    name: str, entry: HeadEntry, X: Floats, y: Labels, selection: Selection, seed: int, image: Ints | None = None
) -> Chosen:
    """Choose hyper-parameters by stratified k-fold within X (n, D), y (n,), and fit the best on all of it.

    Where rows are views of one image, `image` (n,) numbers the images, the first row of each being the image as it is:
    all views of an image fall into one fold, and scores count the images as they are.

    Raises:
        InputError: if the entry or one of its values is not valid, or a class has fewer rows than there are folds.

    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    folds = _splits(y, np.arange(len(y)) if image is None else image, selection.folds, seed)
    if problems := check(name, entry):
        raise InputError(*problems)
    factory = HEADS[str(entry.get("kind", name))]
    models = [(params, factory(seed=seed, **params)) for params in candidates_of(entry)]
    fits = 1 + (len(models) * selection.folds if len(models) > 1 else 0)
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            tqdm(total=fits, desc=name, unit="fit", disable=None) as bar,
        ):
            warnings.simplefilter("always", ConvergenceWarning)
            candidates = _scored(models, X, y, folds, selection.metric, bar.update)
            best = max(range(len(models)), key=lambda number: (candidates[number].mean, -number))
            params, model = models[best]
            if calibrated := "cv" in model.get_params(deep=False):
                model.set_params(cv=[(fold.train, fold.held) for fold in folds])
            _fit(model, X, y).predict_proba(X[:1])  # some settings are only found out when predicting
            if calibrated:
                model.set_params(cv=selection.folds)  # what is saved need not hold every fold's rows
            bar.update()
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise InputError(f"params.yaml: heads.{name}: {' '.join(str(error).split())}") from error
    unconverged = sum(issubclass(one.category, ConvergenceWarning) for one in caught)
    return Chosen(model, params, candidates, unconverged)


@dataclass(frozen=True)
class _Fold:
    """Rows to train on, rows held out, and of these the images as they are, without further views."""

    train: Ints
    held: Ints
    judged: Ints


def _splits(y: Labels, image: Ints, number: int, seed: int) -> list[_Fold]:
    """Deal the images into folds, stratified, and their rows with them."""
    _, first, image_of = np.unique(image, return_index=True, return_inverse=True)
    _require_enough(y[first], number)
    return [
        _Fold(np.flatnonzero(np.isin(image_of, train)), np.flatnonzero(np.isin(image_of, held)), first[held])
        for train, held in _folds(number, seed).split(first, y[first])
    ]


def _require_enough(y: Labels, folds: int) -> None:
    names, counts = np.unique(y, return_counts=True)
    problems = [
        f"class {str(name)!r}: got {count} training images, expected at least {folds}, one for each of selection.folds"
        for name, count in zip(names, counts, strict=True)
        if count < folds
    ]
    if problems:
        raise InputError(*problems)


def _scored(
    models: list[tuple[dict[str, Scalar], Classifier]],
    X: Floats,
    y: Labels,
    folds: list[_Fold],
    metric: str,
    progress: Callable[[], object],
) -> tuple[Candidate, ...]:
    """Score every model on every fold, wherever an outer `joblib.parallel_config` says."""
    if len(models) == 1:
        return (Candidate(models[0][0]),)
    jobs = (
        joblib.delayed(_score_one)(model, X, y, fold, metric) for (_, model), fold in itertools.product(models, folds)
    )
    scores = []
    for score in joblib.Parallel(return_as="generator")(jobs):
        scores.append(score)
        progress()
    table = np.reshape(scores, (len(models), len(folds))).tolist()
    return tuple(Candidate(params, tuple(row)) for (params, _), row in zip(models, table, strict=True))


def _fit(model: Classifier, X: Floats, y: Labels) -> Classifier:
    """Fit; then predict on one core, for threads add up a forest's votes in the order they finish."""
    model.fit(X, y)
    return model.set_params(**{key: 1 for key in model.get_params() if key.endswith("n_jobs")})


def _score_one(model: Classifier, X: Floats, y: Labels, fold: _Fold, metric: str) -> float:
    """Score one model on one fold by its decisions before calibration, which would multiply the price of a search."""
    from sklearn.base import clone  # noqa: PLC0415

    decided = _fit(clone(getattr(model, "estimator", model)), X[fold.train], y[fold.train]).predict(X[fold.judged])
    classes = np.unique(y)
    one_hot = (decided[:, None] == classes[None, :]).astype(np.float64)
    truth = np.searchsorted(classes, y[fold.judged])
    return evaluation.value(metric, truth, one_hot)


# --- Saving ------------------------------------------------------------------------------------------------------

# What a saved head may consist of beyond scikit-learn's and NumPy's plain types, which skops trusts by itself. The
# list is fixed here and never taken from a file.
TRUSTED = (
    "pipeline.nn.mlp.MLPHead",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.tree._tree.Tree",
)


def _skops() -> Any:  # noqa: ANN401  # a module without types
    """Import skops without torch: it imports every package of scikit-learn, among them a shim that would load torch."""
    return import_without("skops.io", "sklearn.externals.array_api_compat.torch")


def save(path: Path, model: Classifier) -> None:
    """Write a fitted head without pickle, and make sure that it will load."""
    with replacing(path) as temporary:
        _skops().dump(model, temporary)
        _require_trusted(path, temporary.read_bytes())


def load(path: Path, stamp: stamps.Stamp) -> Classifier:
    """Read a head whose bytes are the stamped ones; nothing in the file is executed."""
    content = stamps.check(path, stamp)
    _require_trusted(path, content)
    return _skops().loads(content, trusted=list(TRUSTED))


def _require_trusted(path: Path, content: bytes) -> None:
    strange = sorted(set(_skops().get_untrusted_types(data=content)) - set(TRUSTED))
    if strange:
        raise StateError(f"{path}: holds types that no head of ours has: {', '.join(strange)}; not loaded")


def predict(model: Classifier, X: Floats) -> npt.NDArray[np.float64]:
    """Return class probabilities (n, K) of X (n, D), columns in the order of the model's `classes_`."""
    probability = np.asarray(model.predict_proba(X), dtype=np.float64)
    return np.asarray(probability / probability.sum(axis=1, keepdims=True))  # of float32 rows the sum is only near one
