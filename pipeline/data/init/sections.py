"""Sections of params.yaml, written anew with their comments; the rest of the file stays as it is."""

import re
from collections.abc import Mapping

from pipeline.core.errors import InputError

_KEY = re.compile(r"^[A-Za-z_]+:")


def rewritten(text: str, sections: Mapping[str, str]) -> str:
    """Return the text of params.yaml with some top-level sections replaced.

    Comments and blank lines between a section and the next one belong to the next one.

    Args:
        text: the whole file.
        sections: name -> the new lines, key and line ends included.

    Raises:
        InputError: if one does not begin with its name in the first column, as YAML would allow.

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
    if left:
        raise InputError(*(f"params.yaml: {name}: expected a line that begins with `{name}:`" for name in left))
    return "".join(result)


def _end(lines: list[str], start: int) -> int:
    """Return the line after a section's last own one: the last that is indented or continues its list."""
    end = at = start + 1
    while at < len(lines) and not _KEY.match(lines[at]):
        if lines[at].strip() and not lines[at].startswith("#"):
            end = at + 1
        at += 1
    return end
