"""From an entry and labelled rows to a fitted head: search, fit, calibrate and, for `search: validation`, refit."""

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
from pipeline.heads.refusals import name_head_in_errors, require_finite, require_known_classes, unconverged_and_others
from pipeline.heads.rows import Rows
from pipeline.heads.search import Candidate, Scoring, UnfittedHead
from pipeline.heads.training import SoftmaxOfScores, fit_classifier
from pipeline.heads.types import Classifier, Probabilities

_THIS_PROCESS = LocalProcess()

REPEATED = ("accuracy", "balanced_accuracy", "macro_f1")
"""The metrics that repeated k-fold reports: only metrics of decisions, because calibration would multiply the cost."""

KEEP_DECISIONS = ("none", "temperature")
"""Calibrations that never change the most probable class."""

SCORE_TOLERANCE = 0.005
"""The largest difference allowed between the score that a search recorded and that of the same head fitted here, or one
image if that is more. Fits in one process agree exactly; a network trained on another processor may differ slightly."""


@dataclass(frozen=True)
class FittedHead:
    """A fitted head, its chosen settings, and how they were chosen."""

    model: Classifier
    params: Mapping[str, Any]
    candidates: Sequence[Candidate]
    unconverged: int
    """Fits that stopped at their iteration limit."""
    validation: Probabilities
    """(n, K) of the validation rows before any refit; no row was calibrated on its own label."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Method, and scores of the validation probabilities before and after; empty without calibration."""
    repeated: Mapping[str, Any] = field(default_factory=dict)
    """Scores of repeated k-fold; empty if `selection.repeats` is 0."""
    warned: Sequence[str] = ()
    """Warnings of the libraries."""
    notes: Sequence[str] = ()
    """Notes on the choice for the report."""

    def facts(self) -> dict[str, Any]:
        """Return the facts about the choice for the run's stamp."""
        return {
            "params": dict(self.params),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "unconverged_fits": self.unconverged,
            "warnings": list(self.warned),
            "notes": list(self.notes),
        }

    def scores(self) -> dict[str, Any]:
        """Return the further scores for the metrics file."""
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
    cluster: Cluster = _THIS_PROCESS,
) -> FittedHead:
    """Search the settings of a head, fit the best on the training rows, and calibrate it on the validation rows.

    The search runs on the cluster; the head itself is fitted in this process. With `refit`, `search: validation` ends
    with a fit on training and validation rows together.

    Raises:
        InputError: if the entry or one of its values is not valid, a feature is not a number, a class has too few
            images for the folds, or validation holds a class that training lacks.

    """
    with name_head_in_errors(name), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        require_finite(train.X)
        require_finite(validation.X)
        require_known_classes(train, validation)
        models = entries.build(name, entry, seed)
        with tqdm(desc=name, unit="fit", leave=None, disable=None) as bar:
            scoring = _scoring(models, train, validation, entry, selection, seed, cluster, bar.update)
            candidates = _search(models, scoring, entry, selection, seed)
            number = search.best_of(candidates, simplicity.order_of(entries.kind_of(name, entry), models))
            chosen = candidates[number]
            best = next(one for one in models if one[0] is chosen.params)
            model = _fit_on(best, train, selection.folds, seed)
            bar.update()
            uncalibrated = predict(model, validation.X)
            calibrated, probability, scores = _calibrate(model, uncalibrated, validation, entry, seed)
            if chosen.scores:
                _require_same_score(best, chosen, scoring, selection, seed, probability)
            if refit and entry.get("search") == "validation":
                model = _fit_on(best, train + validation, selection.folds, seed)
                calibrated = Calibrated(model, calibrated.calibrator) if scores else model
                bar.update()
            scoring = replace(
                scoring, rows=train, probabilities=partial(_final_probabilities, _method(entry), validation, seed)
            )
            repeated = _repeated_scores(best, scoring, entry, selection, seed)
        notes = simplicity.on_the_edge(entries.kind_of(name, entry), models, chosen.params)
    unconverged, warned = unconverged_and_others(caught)
    return FittedHead(
        calibrated, chosen.params, candidates, unconverged, probability, scores, repeated, warned, notes
    )  # fmt: skip


def _scoring(
    models: Sequence[UnfittedHead],
    train: Rows,
    validation: Rows,
    entry: HeadEntry,
    selection: Selection,
    seed: int,
    cluster: Cluster,
    progress: Callable[[int], object],
) -> Scoring:
    """Return how candidates are scored; a single one needs no folds."""
    probabilities = partial(_final_probabilities, _method(entry), validation, seed)
    if len(models) > 1 and entry.get("search") == "validation":
        rows = train + validation
        held = np.arange(len(train.y), len(rows.y))
        folds = [Fold(np.arange(len(train.y)), held, held)]
        probabilities = partial(_final_probabilities, _method(entry), None, seed)
        return Scoring(rows, folds, selection.metric, probabilities, progress, cluster)
    folds = search.folds_of(train, selection.folds, seed) if len(models) > 1 else []
    return Scoring(train, folds, selection.metric, probabilities, progress, cluster)


def _method(entry: HeadEntry) -> str:
    return str(entry.get("calibrate", entries.CALIBRATIONS[0]))


def _final_probabilities(
    method: str, validation: Rows | None, seed: int, model: Classifier, judged: Rows
) -> Probabilities:
    """Return a head's probabilities of the scored rows, (n, K), calibrated if that can change decisions.

    Args:
        method: of calibration.
        validation: the rows that the calibrator is fitted on; None if these are the scored rows, in folds.
        seed: of these folds.
        model: fitted.
        judged: the scored rows.

    """
    whole = model if hasattr(model, "predict_proba") else SoftmaxOfScores(model)
    probability = predict(whole, judged.X)
    if method in KEEP_DECISIONS:
        return probability
    if validation is None:
        return calibration.cross_calibrate(method, probability, judged.y, seed, judged.origin)
    learnt = calibration.fit_calibrator(method, predict(whole, validation.X), validation.y)
    return np.asarray(learnt.predict_proba(probability))


def _heads_to_search(models: Sequence[UnfittedHead], entry: HeadEntry, folds: int, seed: int) -> list[UnfittedHead]:
    """Return what a search fits: heads without the temperature of their scores, unless it can change decisions."""
    if _method(entry) in KEEP_DECISIONS:
        return [(settings, registry.bare(model)) for settings, model in models]
    return [(settings, _unfitted_copy(model, folds, seed)) for settings, model in models]


def _search(
    models: Sequence[UnfittedHead], scoring: Scoring, entry: HeadEntry, selection: Selection, seed: int
) -> Sequence[Candidate]:
    """Score the candidates by the entry's method of search; a single one is not scored."""
    if len(models) == 1:
        return [Candidate(models[0][0])]
    models = _heads_to_search(models, entry, selection.folds, seed)
    if entry.get("search") == "halving":
        return search.halving(models, scoring, int(str(entry.get("candidates", entries.CANDIDATES))), seed)
    return search.grid(models, scoring)


def _unfitted_copy(model: Classifier, folds: int, seed: int) -> Classifier:
    """Return a copy of a head whose temperature, if it has one, is fitted in as many folds as the search has."""
    from sklearn.base import clone  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    copy = clone(model)
    if registry.bare(model) is not model:
        copy.set_params(cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    return copy


def _fit_on(best: UnfittedHead, rows: Rows, folds: int, seed: int) -> Classifier:
    """Fit a head on all rows, exactly as a candidate is fitted on a fold."""
    return fit_classifier(_unfitted_copy(best[1], folds, seed), rows.X, rows.y, rows.origin)


def _require_same_score(
    best: UnfittedHead,
    chosen: Candidate,
    scoring: Scoring,
    selection: Selection,
    seed: int,
    validation: Probabilities,
) -> None:
    """Raise InputError unless the head, fitted here, scores on the first fold what the search recorded.

    With `search: validation` that is the head itself, before any refit; otherwise it is fitted once more without the
    fold, in this process and by the function that fits the head itself.
    """
    fold = scoring.folds[0]
    judged = scoring.rows[fold.judged]
    if len(scoring.folds) > 1:
        model = _fit_on(best, scoring.rows[fold.train], selection.folds, seed)
        validation = scoring.probabilities(model, judged)
        classes = model.classes_
    else:
        classes = np.unique(scoring.rows.y)
    names = np.unique(scoring.rows.y)
    truth, decided = np.searchsorted(names, judged.y), np.searchsorted(names, classes)[validation.argmax(axis=1)]
    shipped = metrics.value(scoring.metric, truth, decided, len(names))
    if abs(shipped - chosen.scores[0]) > max(SCORE_TOLERANCE, 1.001 / len(truth)):
        raise InputError(
            f"the search scored {chosen.scores[0]:.4f} {scoring.metric} for {dict(chosen.params)}, but the same head "
            f"fitted here scores {shipped:.4f} on the same {len(truth)} images; expected a difference of at most "
            f"{SCORE_TOLERANCE}: search with `embed: engine: {{backend: local}}`"
        )


def _calibrate(
    model: Classifier, probability: Probabilities, validation: Rows, entry: HeadEntry, seed: int
) -> tuple[Classifier, Probabilities, Mapping[str, Any]]:
    """Return the calibrated model, its validation probabilities, and their scores before and after calibration."""
    method, y = _method(entry), validation.y
    if method == "none":
        return model, probability, {}
    after = calibration.cross_calibrate(method, probability, y, seed, validation.origin)
    scores = {
        when: calibration.scores(some, y, model.classes_) for when, some in (("before", probability), ("after", after))
    }
    return Calibrated(model, calibration.fit_calibrator(method, probability, y)), after, {"method": method, **scores}


def _repeated_scores(
    best: UnfittedHead, scoring: Scoring, entry: HeadEntry, selection: Selection, seed: int
) -> Mapping[str, Any]:
    """Return the scores of k-fold with several seeds: mean, spread (standard deviation over all folds) and values."""
    if not selection.repeats:
        return {}
    folds = [
        fold
        for repeat in range(selection.repeats)
        for fold in search.folds_of(scoring.rows, selection.folds, (seed + repeat) % 2**32)
    ]
    models = _heads_to_search([best], entry, selection.folds, seed)
    scores = search.score_table(models, replace(scoring, folds=folds), REPEATED)[0]
    return {"folds": selection.folds, "repeats": selection.repeats} | {
        name: {"mean": float(values.mean()), "spread": float(values.std(ddof=1)), "values": values.tolist()}
        for name, values in zip(REPEATED, scores.T, strict=True)
    }
