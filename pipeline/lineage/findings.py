"""What a check of the lineage found."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is not what it should be."""

    path: str
    """Of the file, in POSIX form from the project's folder; with `: <part>` where only a part of it is meant."""
    expected: str
    found: str

    def __str__(self) -> str:
        """Word the finding."""
        return f"{self.path}: expected {self.expected}, found {self.found}"
