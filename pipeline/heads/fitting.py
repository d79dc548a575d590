"""From an entry and labelled rows to a fitted head: choose, fit, calibrate, and refit where the protocol says so."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.cluster import Cluster, LocalProcess
from pipeline.core.errors import InputError
from pipeline.core.sections import HeadEntry, Selection
from pipeline.data.splits.folds import Fold
from pipeline.evaluation.scoring import metrics
from pipeline.heads import calibration, entries, registry, search, simplicity
from pipeline.heads.calibration import Calibrated
from pipeline.heads.predicting import predict
from pipeline.heads.refusals import require_finite, require_known_classes, unconverged_and_others, worded
from pipeline.heads.rows import Rows
from pipeline.heads.search import Built, Candidate, Judging
from pipeline.heads.training import Scores, trained
from pipeline.heads.types import Classifier, Probabilities

_HERE = LocalProcess()

REPEATED = ("accuracy", "balanced_accuracy", "macro_f1")
"""Metrics that repeated k-fold reports: those that need decisions only, since calibration would multiply the cost."""

KEEP_DECISIONS = ("none", "temperature")
"""Calibrations under which the most probable class stays the same."""

TOLERANCE = 0.005
"""The largest difference allowed between the score of the shipped head and the one its search recorded, or one image if
that is more. Fits in one process agree exactly; a network trained on another processor may end slightly elsewhere."""


@dataclass(frozen=True)
class Chosen:
    """A fitted head, the settings chosen for it, and the candidates."""

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
    """Warnings of the libraries."""
    notes: Sequence[str] = ()
    """Remarks on the choice for the reader of the results."""

    def facts(self) -> dict[str, Any]:
        """Return what the run's stamp tells of the choice."""
        return {
            "params": dict(self.params),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "unconverged_fits": self.unconverged,
            "warnings": list(self.warned),
            "notes": list(self.notes),
        }

    def scores(self) -> dict[str, Any]:
        """Return what stands in the metrics file beside the validation scores."""
        scores = {"calibration": self.calibration, "repeated": self.repeated}
        return {name: score for name, score in scores.items() if score}


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
    with worded(name), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        require_finite(train.X)
        require_finite(validation.X)
        require_known_classes(train, validation)
        models = entries.build(name, entry, seed)
        with tqdm(desc=name, unit="fit", leave=None, disable=None) as bar:
            judging = _judging(models, train, validation, entry, selection, seed, cluster, bar.update)
            candidates = _searched(models, judging, entry, selection, seed)
            number = search.best_of(candidates, simplicity.order_of(entries.kind_of(name, entry), models))
            chosen = candidates[number]
            best = next(built for built in models if built[0] is chosen.params)
            model = _fitted(best, train, selection.folds, seed)
            bar.update()
            uncalibrated = predict(model, validation.X)
            calibrated, probability, scores = _calibrated(model, uncalibrated, validation, entry, seed)
            if chosen.scores:
                _require_as_scored(best, chosen, judging, selection, seed, probability)
            if refit and entry.get("search") == "validation":
                model = _fitted(best, train + validation, selection.folds, seed)
                calibrated = Calibrated(model, calibrated.calibrator) if scores else model
                bar.update()
            judging = replace(judging, rows=train, probabilities=partial(_as_shipped, _method(entry), validation, seed))
            repeated = _repeated(best, judging, entry, selection, seed)
        notes = simplicity.on_the_edge(entries.kind_of(name, entry), models, chosen.params)
    unconverged, warned = unconverged_and_others(caught)
    return Chosen(
        calibrated, chosen.params, candidates, unconverged, probability, scores, repeated, warned, notes
    )  # fmt: skip


def _judging(
    models: Sequence[Built],
    train: Rows,
    validation: Rows,
    entry: HeadEntry,
    selection: Selection,
    seed: int,
    cluster: Cluster,
    progress: Callable[[int], object],
) -> Judging:
    """Return how candidates are judged; a single one needs no folds."""
    probabilities = partial(_as_shipped, _method(entry), validation, seed)
    if len(models) > 1 and entry.get("search") == "validation":
        rows = train + validation
        held = np.arange(len(train.y), len(rows.y))
        folds = [Fold(np.arange(len(train.y)), held, held)]
        probabilities = partial(_as_shipped, _method(entry), None, seed)
        return Judging(rows, folds, selection.metric, probabilities, progress, cluster)
    folds = search.folds_of(train, selection.folds, seed) if len(models) > 1 else []
    return Judging(train, folds, selection.metric, probabilities, progress, cluster)


def _method(entry: HeadEntry) -> str:
    return str(entry.get("calibrate", entries.CALIBRATIONS[0]))


def _as_shipped(method: str, validation: Rows | None, seed: int, model: Classifier, judged: Rows) -> Probabilities:
    """Return what decides the judged rows, (n, K): the head's probabilities, calibrated where that changes decisions.

    Args:
        method: of calibration.
        validation: what the calibrator learns from; None where these are the judged rows.
        seed: of the folds by which these calibrate one another.
        model: fitted.
        judged: rows.

    """
    whole = model if hasattr(model, "predict_proba") else Scores(model)
    probability = predict(whole, judged.X)
    if method in KEEP_DECISIONS:
        return probability
    if validation is None:
        return calibration.cross_fitted(method, probability, judged.y, seed, judged.origin)
    learnt = calibration.calibrator_of(method, predict(whole, validation.X), validation.y)
    return np.asarray(learnt.predict_proba(probability))


def _to_judge(models: Sequence[Built], entry: HeadEntry, folds: int, seed: int) -> list[Built]:
    """Return what a search fits: heads that have scores only go without their temperature, which decides nothing."""
    if _method(entry) in KEEP_DECISIONS:
        return [(settings, registry.bare(model)) for settings, model in models]
    return [(settings, _unfitted(model, folds, seed)) for settings, model in models]


def _searched(
    models: Sequence[Built], judging: Judging, entry: HeadEntry, selection: Selection, seed: int
) -> Sequence[Candidate]:
    """Score the candidates as the entry says; a single one is not scored."""
    if len(models) == 1:
        return [Candidate(models[0][0])]
    models = _to_judge(models, entry, selection.folds, seed)
    if entry.get("search") == "halving":
        return search.halving(models, judging, int(str(entry.get("candidates", entries.CANDIDATES))), seed)
    return search.grid(models, judging)


def _unfitted(model: Classifier, folds: int, seed: int) -> Classifier:
    """Return a copy of a head; scores get their temperature in as many folds as the search has."""
    from sklearn.base import clone  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    copy = clone(model)
    if registry.bare(model) is not model:
        copy.set_params(cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    return copy


def _fitted(best: Built, rows: Rows, folds: int, seed: int) -> Classifier:
    """Fit on all rows, as every candidate was fitted on its folds."""
    return trained(_unfitted(best[1], folds, seed), rows.X, rows.y, rows.origin)


def _require_as_scored(
    best: Built,
    chosen: Candidate,
    judging: Judging,
    selection: Selection,
    seed: int,
    validation: Probabilities,
) -> None:
    """Raise InputError unless the shipped head scores what the search recorded, on the rows of its first fold.

    With `search: validation` that is the shipped head itself, before any refit; else it is fitted once more without
    the fold, in this process and by the same function as the shipped one.
    """
    fold = judging.folds[0]
    judged = judging.rows[fold.judged]
    if len(judging.folds) > 1:
        model = _fitted(best, judging.rows[fold.train], selection.folds, seed)
        validation = judging.probabilities(model, judged)
        classes = model.classes_
    else:
        classes = np.unique(judging.rows.y)
    names = np.unique(judging.rows.y)
    truth, decided = np.searchsorted(names, judged.y), np.searchsorted(names, classes)[validation.argmax(axis=1)]
    shipped = metrics.value(judging.metric, truth, decided, len(names))
    if abs(shipped - chosen.scores[0]) > max(TOLERANCE, 1.001 / len(truth)):
        raise InputError(
            f"the search scored {chosen.scores[0]:.4f} {judging.metric} for {dict(chosen.params)}, but the same head "
            f"fitted here scores {shipped:.4f} on the same {len(truth)} images; expected a difference of at most "
            f"{TOLERANCE}: search with `embed: engine: {{backend: local}}`"
        )


def _calibrated(
    model: Classifier, probability: Probabilities, validation: Rows, entry: HeadEntry, seed: int
) -> tuple[Classifier, Probabilities, Mapping[str, Any]]:
    """Return the model calibrated as the entry says, the validation probabilities after that, and scores of both."""
    method, y = _method(entry), validation.y
    if method == "none":
        return model, probability, {}
    after = calibration.cross_fitted(method, probability, y, seed, validation.origin)
    scores = {
        when: calibration.scores(some, y, model.classes_) for when, some in (("before", probability), ("after", after))
    }
    return Calibrated(model, calibration.calibrator_of(method, probability, y)), after, {"method": method, **scores}


def _repeated(best: Built, judging: Judging, entry: HeadEntry, selection: Selection, seed: int) -> Mapping[str, Any]:
    """Return mean, spread (standard deviation over all folds) and every value of k-fold with several seeds."""
    if not selection.repeats:
        return {}
    folds = [
        fold
        for repeat in range(selection.repeats)
        for fold in search.folds_of(judging.rows, selection.folds, (seed + repeat) % 2**32)
    ]
    models = _to_judge([best], entry, selection.folds, seed)
    scores = search.scored(models, replace(judging, folds=folds), REPEATED)[0]
    return {"folds": selection.folds, "repeats": selection.repeats} | {
        name: {"mean": float(values.mean()), "spread": float(values.std(ddof=1)), "values": values.tolist()}
        for name, values in zip(REPEATED, scores.T, strict=True)
    }
