"""A tree of text: what `trace` finds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """A line, and the branches below it."""

    text: str
    branches: Sequence["Branch"] = ()

    def lines(self) -> Iterator[str]:
        """Yield this line and all lines below it, from the top."""
        yield self.text
        for branch in self.branches:
            yield from branch.lines()


class Once:
    """Makes every branch in full where it first appears; later it is only named."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def __call__(self, text: str, branches: Callable[[], Sequence[Branch]], key: str | None = None) -> Branch:
        """Return the branch of that text; `key` identifies it if the text is ambiguous."""
        if (key or text) in self._made:
            return Branch(f"{text}: as above")
        self._made.add(key or text)
        return Branch(text, branches())
