"""A tree of words: what `trace` finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """A line, and what hangs on it."""

    text: str
    branches: Sequence["Branch"] = ()

    def lines(self) -> Iterator[str]:
        """Yield this line and all beneath it, from the top."""
        yield self.text
        for branch in self.branches:
            yield from branch.lines()


class Once:
    """Grows every branch in full where it first hangs; further down the tree it is named only."""

    def __init__(self) -> None:
        self._grown: set[str] = set()

    def __call__(self, text: str, grow: Callable[[], Sequence[Branch]], key: str | None = None) -> Branch:
        """Return the branch of that text; `key` says what is the same where the text alone does not."""
        if (key or text) in self._grown:
            return Branch(f"{text}: as above")
        self._grown.add(key or text)
        return Branch(text, grow())
