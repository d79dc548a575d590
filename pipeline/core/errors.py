"""What can go wrong that a user can put right."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class PipelineError(Exception):
    """The input or the state is unusable; `problems` holds one readable line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel whole from a worker to its driver."""
        return type(self), self.problems, self.__dict__


class InputError(PipelineError):
    """What the user gave (parameters, images, weights) cannot be used."""


class RefusedError(InputError):
    """A head or plan cannot be made with its settings, on this data; whoever tries again gets the same answer."""

    @property
    def reason(self) -> str:
        """All problems in one line."""
        return one_line("; ".join(self.problems))


class StateError(PipelineError):
    """What an earlier stage left is missing or is not what it wrote."""


class CheckFailed(PipelineError):  # noqa: N818  # nothing went wrong: the check did its work
    """A check found something; `problems` holds one finding each, `printed` what else is said."""

    def __init__(self, *problems: str, printed: str = "") -> None:
        super().__init__(*problems)
        self.printed = printed


def one_line(error: object) -> str:
    """Return what an error says, at most 300 characters of it, with no line break."""
    return " ".join(str(error).split())[:300]


def first_five(problems: Sequence[str], what: str) -> list[str]:
    """Return the first five lines and, if there are more, one that counts them all."""
    return [*problems[:5], *([f"... {len(problems)} {what} in all"] if len(problems) > 5 else [])]


def unknown(field: str, got: str, valid: Iterable[str]) -> str:
    """Return the line for a name that is not among the valid ones, with the nearest of them."""
    names = sorted(valid)
    near = nearest(got, names)
    hint = f"; did you mean {near!r}?" if near else ""
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return f"{field}: got {got!r}, expected one of: {shown}{hint}"


def nearest(got: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like the given one, or whose part behind the last slash is; None if none is near.

    >>> nearest("logrge", ["net/knn", "net/logreg"])
    'net/logreg'
    """
    whole = {name: name for name in names}
    by_last_part = {name.rpartition("/")[2]: name for name in reversed(whole)}
    for some in (whole, by_last_part):
        if near := get_close_matches(got, some, n=1, cutoff=0.5):
            return some[near[0]]
    return None
