from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.core.errors import StateError
from pipeline.finetuning.checkpoints import Checkpoint, TrainingState, optimiser_tensors, part, restore_optimiser


def saved(epochs: int) -> TrainingState:
    return TrainingState({"network.weight": torch.arange(6.0).reshape(2, 3) + epochs}, {"epochs": [0.5] * epochs})


def latest(place: Checkpoint) -> TrainingState:
    found = place.read()
    assert found is not None
    return found


def test_what_was_written_last_is_read_back(tmp_path: Path) -> None:
    place = Checkpoint({"plan": 1}, tmp_path)
    assert place.read() is None
    for epochs in (1, 2):
        place.write(saved(epochs))
    found = latest(Checkpoint({"plan": 1}, tmp_path))
    assert found.facts == {"epochs": [0.5, 0.5]}
    torch.testing.assert_close(part(found.tensors, "network")["weight"], saved(2).tensors["network.weight"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_after_a_kill_between_writing_and_removing_the_later_state_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Checkpoint({"plan": 1}, tmp_path)
    place.write(saved(1))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "_files", lambda _: [])
        place.write(saved(2))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert len(latest(place).facts["epochs"]) == 2


def test_a_failed_write_keeps_the_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Checkpoint({"plan": 1}, tmp_path)
    place.write(saved(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            place.write(saved(2))
    assert len(latest(place).facts["epochs"]) == 1


def test_another_key_finds_nothing_and_a_moved_file_is_refused(tmp_path: Path) -> None:
    one, other = Checkpoint({"plan": 1}, tmp_path), Checkpoint({"plan": 2}, tmp_path)
    one.write(saved(1))
    assert other.read() is None
    one.folder.rename(other.folder)
    with pytest.raises(StateError, match="a checkpoint of another plan"):
        other.read()


def test_a_flipped_bit_is_found_before_the_file_is_parsed(tmp_path: Path) -> None:
    place = Checkpoint({"plan": 1}, tmp_path)
    place.write(saved(1))
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match="altered since it was written"):
        place.read()


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    place = Checkpoint({"plan": 1}, tmp_path)
    place.remove()
    place.write(saved(1))
    (place.folder / ".half-written.tmp").touch()  # as a killed writer leaves it
    place.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_restored_optimiser_continues_exactly(tmp_path: Path, kind: str) -> None:
    def made() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        optimiser = (
            torch.optim.AdamW(network.parameters(), lr=0.1)
            if kind == "adamw"
            else torch.optim.SGD(network.parameters(), momentum=0.9, lr=0.1)
        )
        return network, optimiser

    def step(network: nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        network(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()

    network, optimiser = made()
    step(network, optimiser)
    place = Checkpoint({}, tmp_path)
    remembered = {f"optimiser.{name}": value for name, value in optimiser_tensors(optimiser).items()}
    network_state = {f"network.{name}": value for name, value in network.state_dict().items()}
    place.write(TrainingState({**remembered, **network_state}, {"epochs": [1]}))
    step(network, optimiser)

    again, resumed = made()
    found = latest(place)
    again.load_state_dict(part(found.tensors, "network"))
    restore_optimiser(resumed, part(found.tensors, "optimiser"))
    step(again, resumed)
    torch.testing.assert_close(again.weight, network.weight, rtol=0, atol=0)
