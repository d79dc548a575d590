"""Checkpoints: a training's state after an epoch, outside DVC's outputs, keyed by everything that decides its result.

One folder per key holds one safetensors file, whose name is the sha256 of its bytes: it is checked before it is parsed.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError
from pipeline.evaluation import runs

# To change what is in a checkpoint: raise this number. It is part of every key, so old ones are no longer found.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Saved:
    """What was written: tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Checkpoint:
    """The place of one training's state.

    Args:
        key: everything that decides the training's result, as JSON can hold it.
        root: the folder of all checkpoints.

    """

    def __init__(self, key: Mapping[str, Any], root: Path = runs.CHECKPOINTS) -> None:
        self.key = stamps.sha256_json({**key, "schema_version": SCHEMA_VERSION})
        self.folder = root / self.key

    def write(self, saved: Saved) -> None:
        """Replace the state; a process killed meanwhile leaves the old one, the new one or both, each whole."""
        metadata = {"key": self.key, "facts": json.dumps(saved.facts, sort_keys=True)}
        tensors = {name: value.contiguous() for name, value in saved.tensors.items()}
        content = safetensors.torch.save(tensors, metadata)
        before = self._files()
        path = self.folder / f"{stamps.sha256_bytes(content)}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def read(self) -> Saved | None:
        """Return the latest state, or None if there is none; StateError for altered bytes or another training's."""
        found = [self._parse(path) for path in self._files()]
        return max(found, key=lambda saved: len(saved.facts["epochs"]), default=None)

    def remove(self) -> None:
        """Forget the state: the training has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)  # with what killed writers left

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _parse(self, path: Path) -> Saved:
        if stamps.sha256_file(path) != path.stem:
            raise StateError(f"{path}: altered since it was written; delete it, and the training starts anew")
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("key") != self.key:
                raise StateError(f"{path}: a checkpoint of another plan or of other data; delete it")
            return Saved({name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["facts"]))  # noqa: SIM118  # it is no mapping


def of_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser remembers of its parameters, by the parameter's number and the name."""
    state: Mapping[int, Mapping[str, Tensor | None]] = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, remembered in state.items()
        for name, value in remembered.items()
        if value is not None
    }


def into_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `of_optimiser` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix and a dot, without these."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
