"""Whether a head's settings have values that its classifier takes, as scikit-learn checks them, without a fit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any

from pipeline.core.errors import one_line, unknown
from pipeline.heads.registry import HEADS
from pipeline.heads.types import Classifier

_REFUSAL = re.compile(r"The '\w+' parameter of \w+ must be (.*)\. Got .* instead\.", re.DOTALL)
"""How scikit-learn words a value that it refuses."""
_EXPECTED = re.compile(
    r"a str among \{(?P<options>[^}]*)\}|(?P<kind>an int|a float) in the range "
    r"(?P<from>[\[(])(?P<low>[^,]*), (?P<high>[^\])]*)(?P<to>[\])])|(?P<null>\bNone\b)|(?P<bool>an instance of 'bool')"
)
"""What it expects instead, of what YAML can hold."""
_CHOOSE_THE_CLASSIFIER = ("class_name",)
"""Settings that decide which others there are."""


def problems(where: str, kind: str, values: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield a line for each wrong value of a head's settings.

    Args:
        where: the entry in params.yaml, with which each line begins.
        kind: of the head.
        values: setting -> its values. Each is tried beside the defaults of the other settings, so that what is wrong
            with one is not said of another.

    """
    needed = {key: tried[0] for key, tried in values.items() if key in _CHOOSE_THE_CLASSIFIER}
    if problem := _problem(kind, needed):
        yield f"{where}.{problem}" if problem.startswith("class_name:") else f"{where}: {problem}"
        return
    components = [one for one in values.get("components", ()) if one is not None]
    for key, tried in values.items():
        beside = {**needed, "components": components[0]} if key == "whiten" and components else needed
        for value in tried:
            if problem := _problem(kind, beside, key, value):
                yield f"{where}.{problem}"


def _problem(kind: str, beside: Mapping[str, Any], key: str = "", value: Any = None) -> str | None:  # noqa: ANN401
    try:
        for estimator in _estimators(HEADS[kind](**{**beside, key: value} if key else beside)):
            _validate(estimator, key)
    except (ValueError, TypeError) as error:
        if key and (refusal := _REFUSAL.fullmatch(str(error))):
            return _refused(key, value, refusal[1])
        said = one_line(error)
        return said if not key or said.startswith(f"{key}:") else f"{key}: got {value!r}: {said}"
    return None


def _estimators(model: Classifier) -> list[Any]:
    """Return an estimator and all within it: the steps of a pipeline, and the head below a temperature."""
    return [model, *(one for one in model.get_params(deep=True).values() if hasattr(one, "get_params"))]


def _validate(estimator: Any, key: str) -> None:  # noqa: ANN401  # scikit-learn has no types
    """Raise what scikit-learn raises at the start of a fit if a setting is wrong."""
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()  # scikit-learn's own, made for classes that inherit from it
        return
    from sklearn.utils._param_validation import validate_parameter_constraints  # noqa: PLC0415

    given = {name: value for name, value in estimator.get_params(deep=False).items() if name == key}
    validate_parameter_constraints(_of_our_classifiers(), given, caller_name=type(estimator).__name__)


@cache
def _of_our_classifiers() -> Mapping[str, list[Any]]:
    """Return what the settings of this project's own classifiers may be; a name means the same in all of them."""
    from sklearn.utils._param_validation import Interval, StrOptions  # noqa: PLC0415

    count = [Interval(Integral, 1, None, closed="left")]
    positive = [Interval(Real, 0, None, closed="neither")]
    at_least_0 = [Interval(Real, 0, None, closed="left")]
    return {
        "C": positive,
        "max_iter": count,
        "tol": positive,
        "class_weight": [StrOptions({"balanced"}), None],
        "hidden": count,
        "dropout": [Interval(Real, 0, 1, closed="both")],
        "learning_rate": at_least_0,
        "weight_decay": at_least_0,
        "epochs": count,
        "patience": [Interval(Real, 1, None, closed="left")],
        "folds": [Interval(Integral, 2, None, closed="left")],
    }


def _refused(key: str, value: Any, expected: str) -> str:  # noqa: ANN401  # whatever params.yaml may hold
    """Return the line for a value; of what scikit-learn expects instead, only what YAML can hold is listed."""
    words, rest = list[str](), list[str]()
    for found in _EXPECTED.finditer(expected):
        words += re.findall(r"'([^']*)'", found["options"] or "")
        rest += [_number(*found.group("kind", "from", "low", "high", "to"))] if found["kind"] else []
        rest += ["null"] if found["null"] else ["true or false"] if found["bool"] else []
    if words and isinstance(value, str):
        return unknown(key, value, [*words, *rest])
    *first, last = [*sorted(words), *rest] or [expected]
    return f"{key}: got {value!r}, expected {' or '.join([', '.join(first), last] if first else [last])}"


def _number(kind: str, left: str, low: str, high: str, right: str) -> str:
    """Return an interval in words.

    >>> _number("an int", "[", "1", "inf", ")"), _number("a float", "(", "0.0", "1.0", "]")
    ('a whole number of at least 1', 'a number above 0 and at most 1')
    """
    ends = [f"{'of at least' if left == '[' else 'above'} {float(low):g}"] if low != "-inf" else []
    ends += [f"{'at most' if right == ']' else 'below'} {float(high):g}"] if high != "inf" else []
    return " ".join([f"a {'whole ' if kind == 'an int' else ''}number", " and ".join(ends)]).strip()
