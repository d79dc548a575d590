"""Entries under `heads:` in params.yaml: their problems, and the classifiers that they describe.

An entry holds settings of its kind of head: a single value is fixed, a list is searched. It may also say how to search
(`search`, `candidates`) and how to calibrate probabilities (`calibrate`).
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core.errors import RefusedError, unknown
from pipeline.core.sections import HeadEntry
from pipeline.heads import registry
from pipeline.heads.registry import HEADS
from pipeline.heads.types import Classifier
from pipeline.heads.values import problems as wrong_values

SEARCHES = ("grid", "halving", "validation")
"""grid: every combination by k-fold; halving: random combinations by k-fold, in each round the best third on more rows;
validation: every combination on the validation split, then the best refitted on training and validation images."""
CALIBRATIONS = ("none", "temperature", "sigmoid", "isotonic")
CANDIDATES = 32
"""Random combinations that `search: halving` begins with."""
_COMMON_KEYS = ("kind", "search", "candidates", "calibrate")
"""Keys that any entry may have; the others are settings of the kind of head."""
_COLLECTIONS = ("members",)
"""Settings whose single value is a collection."""


def kind_of(name: str, entry: Mapping[str, object]) -> str:
    """Return an entry's name in the code's catalogue."""
    return str(entry.get("kind", name))


def streams(name: str, entry: Mapping[str, object]) -> bool:
    """Return whether a head reads its features from the file, block by block."""
    return kind_of(name, entry) in registry.STREAMING


def check(name: str, entry: HeadEntry) -> list[str]:
    """Return what is wrong with a head's entry in params.yaml, one line per problem."""
    return list(_problems(f"params.yaml: heads.{name}", name, entry))


def _problems(where: str, name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    kind = kind_of(name, entry)
    if kind not in HEADS:
        yield unknown(where, kind, HEADS)
        return
    try:
        settings = registry.settings_of(kind, entry)
    except ValueError as error:
        yield f"{where}.{error}"
        return
    values = {key: _choices(key, entry[key]) for key in entry if key in settings and key not in _COLLECTIONS}
    yield from wrong_values(where, kind, values)
    for key, value in entry.items():
        if key not in settings and key not in _COMMON_KEYS:
            yield unknown(f"{where}: unknown key", key, {*settings, *_COMMON_KEYS})
        elif value == []:
            yield f"{where}.{key}: got an empty list, expected values to choose from"
    for key, valid in (("search", SEARCHES), ("calibrate", CALIBRATIONS)):
        if (value := entry.get(key, valid[0])) not in valid:
            yield unknown(f"{where}.{key}", str(value), valid)
    candidates = entry.get("candidates", 2)
    if not isinstance(candidates, int) or isinstance(candidates, bool) or candidates < 2:
        yield f"{where}.candidates: got {candidates!r}, expected a whole number of at least 2"
    if "members" in entry:
        yield from _problems_of_members(where, entry["members"])


def _problems_of_members(where: str, members: object) -> Iterator[str]:
    if not isinstance(members, Mapping) or not members:
        yield f"{where}.members: got {members!r}, expected a mapping of heads' names to their settings"
        return
    for name, entry in members.items():
        yield from _problems(f"{where}.members.{name}", name, entry)
        if bad := [key for key in ("search", "candidates", "calibrate") if key in entry]:
            yield f"{where}.members.{name}.{bad[0]}: not a setting of a member; state it for the whole head"


def combinations(entry: HeadEntry) -> list[dict[str, Any]]:
    """Return every combination of an entry's settings, in the order of params.yaml.

    >>> combinations({"kind": "knn", "n_neighbors": [1, 3], "weights": "uniform"})
    [{'n_neighbors': 1, 'weights': 'uniform'}, {'n_neighbors': 3, 'weights': 'uniform'}]
    """
    choices = {key: _choices(key, value) for key, value in entry.items() if key not in _COMMON_KEYS}
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def _choices(key: str, value: Any) -> list[Any]:  # noqa: ANN401  # whatever params.yaml may hold
    if key == "C" and value == "sweep":
        from pipeline.heads.logistic import SWEEP  # noqa: PLC0415

        return list(SWEEP)
    return value if isinstance(value, list) and key not in _COLLECTIONS else [value]


def build(name: str, entry: HeadEntry, seed: int) -> list[tuple[dict[str, Any], Classifier]]:
    """Return every combination of settings with its unfitted classifier; RefusedError if the entry is not valid."""
    if problems := check(name, entry):
        raise RefusedError(*problems)
    kind = kind_of(name, entry)
    return [(settings, HEADS[kind](seed=seed, **settings)) for settings in combinations(entry)]
