"""params.yaml with some sections rewritten: checked before anybody is asked, then written as a whole or not at all."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path

from pipeline.core import params as params_module
from pipeline.core.atomic import replacing
from pipeline.core.errors import InputError
from pipeline.core.params import PARAMS, Params
from pipeline.core.printable import printable

_KEY = re.compile(r"^[A-Za-z_]+:")


@dataclass(frozen=True)
class Rewriting:
    """The file's text before and after, with its own line ends."""

    before: str
    after: str

    @property
    def needed(self) -> bool:
        """Whether anything would change."""
        return self.before != self.after

    def changes(self) -> str:
        """Return the lines to be removed and added, for a terminal."""
        found = unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0)
        return "\n".join(printable(line) for line in islice(found, 2, None) if not line.startswith("@@"))

    def parsed(self) -> Params:
        """Return the parameters in the new text; InputError if it is not a valid params.yaml."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, PARAMS)
            path.write_bytes(self.after.encode())
            try:
                return params_module.load(path)
            except InputError as error:
                problems = (problem.replace(str(path), f"{PARAMS}, as it would be") for problem in error.problems)
                raise InputError(*problems) from error

    def write(self) -> None:
        """Write the new text, keeping the file's mode and following a link.

        Raises:
            InputError: if the file is read-only, or has changed since it was read.

        """
        path = PARAMS.resolve()
        mode = path.stat().st_mode
        if not mode & 0o222:
            raise InputError(f"{PARAMS}: is read-only; nothing was written")
        if _read() != self.before:
            raise InputError(f"{PARAMS}: was changed meanwhile; nothing was written: run this again")
        with replacing(path) as temporary:
            temporary.write_bytes(self.after.encode())
            os.chmod(temporary, mode)  # noqa: PTH101  # the temporary file is ours alone


def rewriting(new: Mapping[str, str]) -> Rewriting:
    """Plan to replace sections of params.yaml, given as name -> text with line feeds."""
    before = _read()
    if "\r\n" in before:
        new = {name: text.replace("\n", "\r\n") for name, text in new.items()}
    return Rewriting(before, rewritten(before, new))


def _read() -> str:
    return PARAMS.read_bytes().decode()  # `read_text` would drop carriage returns


def rewritten(text: str, sections: Mapping[str, str]) -> str:
    """Return the text of params.yaml with some top-level sections replaced; all else stays as it is.

    Comments and blank lines between a section and the next one belong to the next one.

    Args:
        text: the whole file.
        sections: name -> the new lines, key and line ends included.

    Raises:
        InputError: if a section is missing, or does not begin in the first column, as YAML allows.

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
    """Return the index behind a section's last line, which is the last that is neither blank nor a comment."""
    end = at = start + 1
    while at < len(lines) and not _KEY.match(lines[at]):
        if lines[at].strip() and not lines[at].startswith("#"):
            end = at + 1
        at += 1
    return end
