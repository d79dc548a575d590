"""Which of several settings is the simplest, and a note on a chosen value that is at the edge of those tried."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pipeline.heads import registry
from pipeline.heads.search import Order, UnfittedHead

FEWEST_TRIED = 3
"""Fewer values of a setting have no edge worth a note: none lies between two others."""


def order_of(kind: str, models: Sequence[UnfittedHead]) -> Order:
    """Return a key that sorts the settings of a kind of head from simple to complex.

    It compares the settings that the factory names, the most important first; values that are not numbers ("scale",
    null) come after all numbers. Ties keep the order of params.yaml.
    """
    numbers = [settings for settings, _ in models]

    def key(settings: Mapping[str, Any]) -> tuple[float, ...]:
        ranks = [_rank(settings[name], more) for name, more in registry.SIMPLER[kind].items() if name in settings]
        return (*ranks, float(numbers.index(settings)))

    return key


def _rank(value: object, more_is_simpler: bool) -> float:
    if not _is_number(value):
        return math.inf
    return -value if more_is_simpler else value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def on_the_edge(kind: str, models: Sequence[UnfittedHead], chosen: Mapping[str, Any]) -> list[str]:
    """Return a note for each chosen number that is the smallest or the largest of at least three that were tried."""
    found = []
    for name in registry.SIMPLER[kind]:
        tried = sorted({settings[name] for settings, _ in models if _is_number(settings.get(name))})
        if len(tried) >= FEWEST_TRIED and chosen[name] in (tried[0], tried[-1]):
            end, further = ("smallest", "smaller") if chosen[name] == tried[0] else ("largest", "larger")
            found.append(f"{name}={chosen[name]:g} is the {end} of the {len(tried)} tried; {further} may do better.")
    return found
