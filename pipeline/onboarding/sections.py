"""Sections of params.yaml, written anew with their comments; the rest of the file stays as it is."""

import re
from collections.abc import Mapping

_KEY = re.compile(r"^[A-Za-z_]+:")


def rewritten(text: str, sections: Mapping[str, str]) -> str:
    """Return the text of params.yaml with some top-level sections replaced; a missing one is put at the end.

    Comments and blank lines between a section and the next one belong to the next one.

    Args:
        text: the whole file.
        sections: name -> the new lines, key and line ends included.

    """
    lines, left = text.splitlines(keepends=True), dict(sections)
    result: list[str] = []
    at = 0
    while at < len(lines):
        name = lines[at].split(":")[0]
        if not _KEY.match(lines[at]) or name not in left:
            result.append(lines[at])
            at += 1
            continue
        result.append(left.pop(name))
        at = _end(lines, at)
    return "".join(result) + "".join(f"\n{section}" for section in left.values())


def _end(lines: list[str], start: int) -> int:
    """Return the line after a section's last own one: the last that is indented or continues its list."""
    end = at = start + 1
    while at < len(lines) and not _KEY.match(lines[at]):
        if lines[at].strip() and not lines[at].startswith("#"):
            end = at + 1
        at += 1
    return end
