"""What the exports of dvc.lock share: optional packages, and a stage's command and parameters as text."""

import importlib
import json
from collections.abc import Iterator
from types import ModuleType

from pipeline.core.errors import InputError
from pipeline.core.locks import Locked


def require(module: str) -> ModuleType:
    """Import a module of an optional package; InputError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"{package}: not installed: pip install 'headswap[lineage]'") from error


def parameters(stage: Locked) -> Iterator[tuple[str, str]]:
    """Yield each parameter as `file:dotted.name` and its value as JSON, sorted by name."""
    named = [(f"{file}:{name}", value) for file, values in stage.params.items() for name, value in values.items()]
    for name, value in sorted(named, key=lambda pair: pair[0]):
        yield name, json.dumps(value, ensure_ascii=False, default=str)  # YAML also knows dates


def command(stage: Locked) -> str:
    """Return a stage's command; a list of commands, which DVC allows, with a line for each."""
    cmd: str | list[str] = stage.cmd
    return "\n".join(cmd) if isinstance(cmd, list) else cmd
