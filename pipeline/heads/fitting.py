"""From an entry and labelled rows to a fitted head: choose, fit, calibrate, and refit where the protocol says so."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline import engines
from pipeline.embeddings.stored import Stored
from pipeline.engines import Cluster
from pipeline.errors import InputError, RefusedError, one_line
from pipeline.heads import calibration, entries, search
from pipeline.heads.calibration import Calibrated
from pipeline.heads.rows import Rows
from pipeline.heads.search import Built, Candidate, Fold, Judging
from pipeline.heads.types import Classifier, Features, Floats, Labels
from pipeline.params import HeadEntry, Selection

Probabilities = npt.NDArray[np.float64]
_HERE = engines.Here()

REPEATED = ("accuracy", "balanced_accuracy", "macro_f1")
"""What repeated k-fold reports: what decisions alone can tell, for calibration would multiply its price."""

BLOCK = 256
"""Rows that are predicted at a time, always as many and on one thread: the last bits of a matrix product depend on how
many rows it has, and what is said of an image must not depend on what else is asked."""


@dataclass(frozen=True)
class Chosen:
    """A fitted head, what was chosen for it and from what."""

    model: Classifier
    params: Mapping[str, Any]
    candidates: Sequence[Candidate]
    unconverged: int
    """Fits that stopped at their iteration limit."""
    validation: Probabilities
    """(n, K) of the validation rows, before any refit, each calibrated without itself."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Scores of the validation probabilities before and after; empty without calibration."""
    repeated: Mapping[str, Any] = field(default_factory=dict)
    """Scores over repeated k-fold; empty if not asked for."""
    warned: Sequence[str] = ()
    """What libraries warned of on the way."""


def fit(
    name: str,
    entry: HeadEntry,
    train: Rows,
    validation: Rows,
    selection: Selection,
    seed: int,
    *,
    refit: bool = True,
    cluster: Cluster = _HERE,
) -> Chosen:
    """Choose hyper-parameters as the entry says, fit the best on the training rows, and calibrate it on validation.

    Args:
        name: of the head.
        entry: its settings.
        train: what it learns from.
        validation: what choices may look at.
        selection: how choices are made.
        seed: of all that is random.
        refit: whether `search: validation` ends with a fit on training and validation rows together.
        cluster: where the fits that only score run; the head itself is fitted in this process.

    Raises:
        InputError: if the entry or one of its values is not valid, a feature is not a number, a class has too few
            images for the folds, or validation holds a class that training lacks.

    """
    with _worded(name), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        require_finite(train.X)
        require_finite(validation.X)
        _require_known_classes(train, validation)
        models = entries.build(name, entry, seed)
        with tqdm(desc=name, unit="fit", leave=None, disable=None) as bar:
            candidates = _searched(models, train, validation, entry, selection, seed, bar.update, cluster)
            chosen = candidates[search.best_of(candidates)].params
            best = next(built for built in models if built[0] is chosen)
            model = _fitted(best, train, selection.folds, seed)
            bar.update()
            uncalibrated = predict(model, validation.X)
            if refit and entry.get("search") == "validation":
                model = _fitted(best, train + validation, selection.folds, seed)
                bar.update()
            model, probability, scores = _calibrated(model, uncalibrated, validation.y, entry, seed)
            repeated = _repeated(best, train, selection, seed, bar.update, cluster)
    unconverged, warned = _sort_out(caught)
    return Chosen(model, chosen, candidates, unconverged, probability, scores, repeated, warned)


@contextmanager
def _worded(name: str) -> Iterator[None]:
    """Say which head it was that scikit-learn, or the code around it, refused."""
    try:
        yield
    except InputError as error:
        where = "params.yaml"
        raise type(error)(
            *(line if line.startswith(where) else f"{where}: heads.{name}: {line}" for line in error.problems)
        ) from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise RefusedError(f"params.yaml: heads.{name}: {one_line(error)}") from error
    except (RuntimeError, MemoryError) as error:  # which another time may not happen
        raise InputError(f"params.yaml: heads.{name}: {one_line(error)}") from error


def _sort_out(caught: Sequence[warnings.WarningMessage]) -> tuple[int, Sequence[str]]:
    """Count the fits that did not converge, and return what else was warned of, each once."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    others = {one_line(one.message) for one in caught if not issubclass(one.category, ConvergenceWarning)}
    return sum(issubclass(one.category, ConvergenceWarning) for one in caught), sorted(others)


def require_finite(X: Features) -> None:
    """Raise InputError naming the rows of X (n, D) that hold something that is not a finite number."""
    if isinstance(X, Stored):
        return  # looked at while it is read, which takes long
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise InputError(
            f"features: row {shown}: got NaN or infinity, expected finite numbers; run `dvc repro --force`"
        )


def _require_known_classes(train: Rows, validation: Rows) -> None:
    if absent := sorted(set(validation.y.tolist()) - set(train.y.tolist())):
        raise RefusedError(*(f"class {name!r}: in validation, but no training image has it" for name in absent))


def _searched(
    models: Sequence[Built],
    train: Rows,
    validation: Rows,
    entry: HeadEntry,
    selection: Selection,
    seed: int,
    progress: Callable[[int], object],
    cluster: Cluster,
) -> Sequence[Candidate]:
    """Score the candidates as the entry says; a single one is not scored."""
    how = entry.get("search", entries.SEARCHES[0])
    if len(models) == 1:
        return [Candidate(models[0][0])]
    if how == "validation":
        rows, fold = _as_one_fold(train, validation)
        return search.grid(models, Judging(rows, [fold], selection.metric, progress, cluster))
    folds = search.folds_of(train, selection.folds, seed)
    judging = Judging(train, folds, selection.metric, progress, cluster)
    if how == "grid":
        return search.grid(models, judging)
    return search.halving(models, judging, int(str(entry.get("candidates", entries.CANDIDATES))), seed)


def _as_one_fold(train: Rows, validation: Rows) -> tuple[Rows, Fold]:
    rows = train + validation
    held = np.arange(len(train.y), len(rows.y))
    return rows, Fold(np.arange(len(train.y)), held, held)


def _fitted(best: Built, rows: Rows, folds: int, seed: int) -> Classifier:
    """Fit on all rows; probabilities that need folds get ones that keep images and groups whole."""
    from sklearn.base import clone  # noqa: PLC0415

    model = clone(best[1])
    if "cv" not in model.get_params(deep=False) or not hasattr(model, "method"):
        return search.fit_quietly(model, rows)
    model.set_params(cv=[(fold.train, fold.held) for fold in search.folds_of(rows, folds, seed)])
    return search.fit_quietly(model, rows).set_params(cv=folds)  # what is saved need not hold every fold's rows


def _calibrated(
    model: Classifier, probability: Probabilities, y: Labels, entry: HeadEntry, seed: int
) -> tuple[Classifier, Probabilities, Mapping[str, Any]]:
    """Return the model calibrated as the entry says, the validation probabilities after that, and scores of both."""
    method = str(entry.get("calibrate", entries.CALIBRATIONS[0]))
    if method == "none":
        return model, probability, {}
    after = calibration.cross_fitted(method, probability, y, seed)
    scores = {
        when: calibration.scores(some, y, model.classes_) for when, some in (("before", probability), ("after", after))
    }
    return Calibrated(model, calibration.calibrator_of(method, probability, y)), after, {"method": method, **scores}


def _repeated(
    best: Built, train: Rows, selection: Selection, seed: int, progress: Callable[[int], object], cluster: Cluster
) -> Mapping[str, Any]:
    """Return mean, spread (standard deviation over all folds) and every value of k-fold with several seeds."""
    if not selection.repeats:
        return {}
    folds = [
        fold
        for repeat in range(selection.repeats)
        for fold in search.folds_of(train, selection.folds, (seed + repeat) % 2**32)
    ]
    scores = search.scored([best], Judging(train, folds, selection.metric, progress, cluster), REPEATED)[0]
    return {"folds": selection.folds, "repeats": selection.repeats} | {
        name: {"mean": float(values.mean()), "spread": float(values.std(ddof=1)), "values": values.tolist()}
        for name, values in zip(REPEATED, scores.T, strict=True)
    }


def predict(model: Classifier, X: Features) -> Probabilities:
    """Return class probabilities (n, K) of X (n, D), columns in the order of the model's `classes_`.

    A row's probabilities are the same bits whatever the other rows are, and however many.

    Raises:
        InputError: if the head gives something that is not a probability.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    with threadpool_limits(1, user_api="blas"):
        parts = [_predicted(model, X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)]
    probability = np.concatenate([np.empty((0, len(model.classes_))), *parts])
    if not np.isfinite(probability).all():
        raise RefusedError("gives probabilities that are not numbers; do the features differ from one another at all?")
    return np.asarray(probability / probability.sum(axis=1, keepdims=True))  # of float32 rows the sum is only near one


def _predicted(model: Classifier, rows: Floats) -> Probabilities:
    """Predict a block of rows (n, D), filled up with its last one: (n, K)."""
    filled = np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows), axis=0)])
    if filled.dtype == np.float16:  # how rows are stored, and what heads are trained on in float32
        filled = filled.astype(np.float32)
    return np.asarray(model.predict_proba(filled), dtype=np.float64)[: len(rows)]
