"""What a check of the lineage, or of the splits, finds."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Mismatch:
    """One thing that is not what it should be."""

    path: str
    """Of the file or folder, in POSIX form from the project's folder."""
    expected: str
    found: str
    part: str = ""
    """Of the file, where only one is meant."""

    @property
    def place(self) -> str:
        """The file, and the part that is meant."""
        return f"{self.path}: {self.part}" if self.part else self.path

    def __str__(self) -> str:
        """Word the finding."""
        return f"{self.place}: expected {self.expected}, found {self.found}"
