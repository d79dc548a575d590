"""Classifiers of scikit-learn by the name of their class, and the settings that Headswap refuses."""

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import unknown
from pipeline.core.sections import Scalar

GAUSSIAN = "sklearn.naive_bayes.GaussianNB"


def require_no_split_by_rows(chosen: Any, settings: Mapping[str, Scalar]) -> None:  # noqa: ANN401  # a class
    """Raise ValueError if the class would split rows by itself, which could separate views of an image, or a group."""
    parameters = inspect.signature(chosen).parameters
    why = "because it splits rows by itself, not images and groups"
    for key in ("early_stopping", "probability"):
        if settings.get(key):
            raise ValueError(f"{key}: got {settings[key]!r}, expected false, {why}")
    stops_early = "early_stopping" not in parameters and "validation_fraction" in parameters
    if stops_early and settings.get("n_iter_no_change"):
        raise ValueError(f"n_iter_no_change: got {settings['n_iter_no_change']!r}, expected null, {why}")
    if "cv" in parameters and not hasattr(chosen, "predict_proba"):
        raise ValueError(f"class_name: got {chosen.__name__!r}, expected one without `cv`, {why}; a list is searched")


def classifier_class(name: str) -> type:
    """Return a public classifier of scikit-learn; nothing outside its namespace is ever imported."""
    if re.fullmatch(r"sklearn(\.[a-z][a-z0-9_]*)+\.[A-Z]\w*", name):
        module, _, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
        from sklearn.base import ClassifierMixin  # noqa: PLC0415

        if isinstance(found, type) and found.__module__.startswith("sklearn.") and issubclass(found, ClassifierMixin):
            return found
    raise ValueError(unknown("class_name", name, _public_classifiers()))


def _public_classifiers() -> list[str]:
    from sklearn.utils import all_estimators  # noqa: PLC0415

    return [
        re.sub(r"\._.*", "", found.__module__) + "." + name for name, found in all_estimators(type_filter="classifier")
    ]
