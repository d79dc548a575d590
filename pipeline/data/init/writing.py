"""params.yaml with some sections written anew: checked before anybody is asked, and whole or as it was after."""

import os
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
from pipeline.data.init import sections


@dataclass(frozen=True)
class Rewriting:
    """The file's text before and after; line ends stay what they are."""

    before: str
    after: str

    @property
    def needed(self) -> bool:
        """Whether anything would change."""
        return self.before != self.after

    def changes(self) -> str:
        """Return the lines that would change, for a terminal."""
        found = unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0)
        return "\n".join(printable(line) for line in islice(found, 2, None) if not line.startswith("@@"))

    def parsed(self) -> Params:
        """Return what the new text says; InputError if it is no valid params.yaml."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, PARAMS)
            path.write_bytes(self.after.encode())
            try:
                return params_module.load(path)
            except InputError as error:
                said = (problem.replace(str(path), f"{PARAMS}, as it would be") for problem in error.problems)
                raise InputError(*said) from error

    def write(self) -> None:
        """Write the new text, through a link and with the old mode.

        Raises:
            InputError: if the file may not be written, or somebody has changed it since it was read.

        """
        path = PARAMS.resolve()
        mode = path.stat().st_mode
        if not mode & 0o222:
            raise InputError(f"{PARAMS}: is read-only; nothing was written")
        if _read() != self.before:
            raise InputError(f"{PARAMS}: was changed meanwhile; nothing was written: run this again")
        with replacing(path) as temporary:
            temporary.write_bytes(self.after.encode())
            os.chmod(temporary, mode)  # noqa: PTH101  # of a file that nobody else knows


def rewriting(new: Mapping[str, str]) -> Rewriting:
    """Return what becomes of params.yaml with these sections, each ending its lines with a line feed."""
    before = _read()
    ended = {name: text.replace("\n", "\r\n") for name, text in new.items()} if "\r\n" in before else new
    return Rewriting(before, sections.rewritten(before, ended))


def _read() -> str:
    return PARAMS.read_bytes().decode()  # as it is: reading text would take carriage returns away
