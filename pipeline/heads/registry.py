"""HEADS: name -> factory of an unfitted scikit-learn classifier, with preprocessing and probabilities.

The factories are in `catalogue`. The decorator adds preprocessing before the classifier, and probabilities if it only
has scores.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from pipeline.heads import preprocessing
from pipeline.heads.scikit_learn import GAUSSIAN, classifier_class
from pipeline.heads.training import FOLDS
from pipeline.heads.types import Classifier, Factory

_REGISTRY: dict[str, Factory] = {}
HEADS: Mapping[str, Factory] = _REGISTRY
STREAMING: set[str] = set()
"""Kinds of heads that read their features from the file, block by block."""
SIMPLER: dict[str, Mapping[str, bool]] = {}
"""kind of head -> the numeric settings that order it by simplicity, each with MORE or LESS"""

MORE, LESS = True, False
"""Which way a setting makes a head simpler."""


def bare(model: Classifier) -> Classifier:
    """Return a head without the temperature that turns its scores into probabilities; its decisions are the same."""
    return getattr(model, "estimator", model) if "cv" in model.get_params(deep=False) else model


def head(
    scale: str = "standard", *, streams: bool = False, simpler: Mapping[str, bool] | None = None
) -> Callable[[Factory], Factory]:
    """Register a factory.

    Args:
        scale: the scaling, unless params.yaml sets another.
        streams: whether the head reads its features from the file, block by block.
        simpler: numeric setting -> whether MORE or LESS of it makes the head simpler, the most important setting first.
            The simplest head within one standard error of the best is chosen; ties keep the order of params.yaml.

    """
    common = {
        "scale": inspect.Parameter("scale", inspect.Parameter.KEYWORD_ONLY, default=scale),
        "components": inspect.Parameter("components", inspect.Parameter.KEYWORD_ONLY, default=None),
        "whiten": inspect.Parameter("whiten", inspect.Parameter.KEYWORD_ONLY, default=False),
    }

    def register(build: Factory) -> Factory:
        @wraps(build)
        def factory(*, seed: int = 0, **settings: Any) -> Classifier:  # noqa: ANN401  # what params.yaml may hold
            before = {key: settings.pop(key, parameter.default) for key, parameter in common.items()}
            return _complete(preprocessing.steps(seed=seed, **before), build(seed=seed, **settings), seed)

        name = build.__name__
        SIMPLER[name] = {**(simpler or {}), **({} if streams else {"components": LESS})}
        if streams:
            STREAMING.add(name)
            _REGISTRY[name] = build
            return build
        signature = inspect.signature(build)
        parameters = list(signature.parameters.values())
        at = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
        factory.__signature__ = signature.replace(  # type: ignore[attr-defined]  # read by inspect.signature
            parameters=[*parameters[:at], *common.values(), *parameters[at:]]
        )
        _REGISTRY[name] = factory
        return factory

    return register


def _complete(before: list[Classifier], classifier: Classifier, seed: int) -> Classifier:
    """Put preprocessing before a classifier and, if it only has scores, a temperature (Guo et al. 2017) behind it.

    The temperature is fitted on cross-validated scores of the training data; the classifier is fitted on all of it.
    Unlike Platt's sigmoid, it changes no decision: a search can score the classifier alone, and class weights keep
    their effect.
    """
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    model = make_pipeline(*before, classifier)
    if hasattr(classifier, "predict_proba"):
        return model
    from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)  # `training` replaces it by folds of whole groups
    return CalibratedClassifierCV(model, method="temperature", ensemble=False, cv=folds)


def settings_of(kind: str, entry: Mapping[str, object]) -> set[str]:
    """Return the settings that params.yaml may state for a kind of head; ValueError for an unknown `class_name`."""
    names = set(inspect.signature(HEADS[kind]).parameters) - {"seed"}
    if kind != "sklearn_class":
        return names
    of_class = inspect.signature(classifier_class(str(entry.get("class_name", GAUSSIAN)))).parameters
    return names - {"settings"} | set(of_class) - {"random_state"}
