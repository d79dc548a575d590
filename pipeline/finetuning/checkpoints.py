"""Checkpoints: the state of a training after an epoch, outside DVC's outputs, keyed by all that decides its result.

Each key has a folder with one safetensors file. Its name is the sha256 of its bytes, which is checked before parsing.
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

# To change the content of checkpoints: raise this number. It is part of every key, so old ones are no longer found.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrainingState:
    """The content of a checkpoint: tensors by name, and facts as JSON."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Checkpoint:
    """The checkpoint of one training.

    Args:
        key: everything that decides the result of the training, as JSON.
        root: the folder of all checkpoints.

    """

    def __init__(self, key: Mapping[str, Any], root: Path = runs.CHECKPOINTS) -> None:
        self.key = stamps.sha256_json({**key, "schema_version": SCHEMA_VERSION})
        self.folder = root / self.key

    def write(self, state: TrainingState) -> None:
        """Replace the state; a process killed meanwhile leaves the old state, the new one, or both, each complete."""
        metadata = {"key": self.key, "facts": json.dumps(state.facts, sort_keys=True)}
        tensors = {name: value.contiguous() for name, value in state.tensors.items()}
        content = safetensors.torch.save(tensors, metadata)
        before = self._files()
        path = self.folder / f"{stamps.sha256_bytes(content)}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def read(self) -> TrainingState | None:
        """Return the latest state, or None; StateError for altered bytes or the state of another training."""
        states = [self._parse(path) for path in self._files()]
        return max(states, key=lambda state: len(state.facts["epochs"]), default=None)

    def remove(self) -> None:
        """Delete the state when the training has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)  # temporary files of killed writers, too

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _parse(self, path: Path) -> TrainingState:
        if stamps.sha256_file(path) != path.stem:
            raise StateError(f"{path}: altered since it was written; delete it to train from the start")
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("key") != self.key:
                raise StateError(f"{path}: a checkpoint of another plan or of other data; delete it")
            return TrainingState({name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["facts"]))  # noqa: SIM118  # it is no mapping


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as tensors named `<number of the parameter>.<name>`."""
    state: Mapping[int, Mapping[str, Tensor | None]] = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix and a dot, under the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
