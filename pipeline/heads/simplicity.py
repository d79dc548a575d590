"""Which of several settings is the simplest, and what to say of a winner beyond which nothing was tried."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pipeline.heads import registry
from pipeline.heads.search import Built, Order

INSIDE = 3
"""Values that a setting needs before one of them can lie inside."""


def order_of(kind: str, models: Sequence[Built]) -> Order:
    """Return what sorts settings of a kind of head from simple to complex.

    By the settings that its factory names, one after the other; what is no number ("scale", null) comes after all
    numbers. What is still equal stays in the order of params.yaml.
    """
    numbers = [settings for settings, _ in models]

    def key(settings: Mapping[str, Any]) -> tuple[float, ...]:
        ranks = [_rank(settings[name], more) for name, more in registry.simpler(kind).items() if name in settings]
        return (*ranks, float(numbers.index(settings)))

    return key


def _rank(value: object, more_is_simpler: bool) -> float:  # what a factory says of a setting
    if not _is_number(value):
        return math.inf
    return -value if more_is_simpler else value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def on_the_edge(kind: str, models: Sequence[Built], chosen: Mapping[str, Any]) -> list[str]:
    """Say of each chosen number whether it is the smallest or the largest of at least three that were tried."""
    found = []
    for name in registry.simpler(kind):
        tried = sorted({settings[name] for settings, _ in models if _is_number(settings.get(name))})
        if len(tried) >= INSIDE and chosen[name] in (tried[0], tried[-1]):
            end, further = ("smallest", "smaller") if chosen[name] == tried[0] else ("largest", "larger")
            found.append(f"{name}={chosen[name]:g} is the {end} of the {len(tried)} tried; {further} may do better.")
    return found
