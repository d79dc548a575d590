"""Two processes on the CPU, as torchrun starts them; `make soak` starts them by torchrun itself."""

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.evaluation import runs
from pipeline.finetuning import fitting, training
from pipeline.finetuning.examples import Live, examples_of
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Task
from pipeline.networks import runtime
from pipeline.stages import embed, finetune, prepare
from tests.conftest import REPOSITORY, Project
from tests.finetuning.examples import loaded, plan, task_of
from tests.preloaded import PYTHON

MAIN = """
import sys
from contextlib import nullcontext
sys.path.insert(0, {repository!r})
from pipeline.core import params
from pipeline.finetuning import processes
from pipeline.networks import backbones
from pipeline.stages import finetune
from tests.conftest import TINY
backbones.BACKBONES["tiny"] = TINY
with processes.started() as together:
    processes.started = lambda: nullcontext(together)
    for plan in sys.argv[1:]:
        print(finetune.main(params.load(), "tiny", plan))
"""
PLANS: dict[str, dict[str, Any]] = {
    "stored": {"cache_frozen": True, "mixup": 0.4, "class_weight": "balanced"},
    "whole": {"unfreeze_from": "first", "accumulate": 2, "clip": 1.0, "average": 0.5, "thaw_epochs": 1},
}


def in_two_processes(preloaded: Path) -> str:
    """Run the stage for every plan in two processes that share every batch; return their output."""
    Path("main.py").write_text(MAIN.format(repository=str(REPOSITORY)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    begun = [
        subprocess.Popen(
            [preloaded / PYTHON, "main.py", *PLANS],
            env={**os.environ, **place, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) for rank in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in begun]
    assert [process.returncode for process in begun] == [0, 0], said
    return "".join(out for out, _ in said)


def test_two_processes_give_the_result_of_one_with_the_same_global_batch(project: Project, preloaded: Path) -> None:
    common = {"unfreeze_from": "second", "epochs": 3, "batch_size": 5, "learning_rate": 0.01}
    params = project.write(plans={name: {**common, **settings} for name, settings in PLANS.items()})
    prepare.main(params)
    embed.main(params, "tiny")
    for name in PLANS:
        finetune.main(params, "tiny", name)
    alone = {name: runs.read("tiny", name) for name in PLANS}
    said = in_two_processes(preloaded)
    assert said.count("epochs") == said.count("process 1 of 2: done") == len(PLANS)
    for name, before in alone.items():
        both = runs.read("tiny", name)
        assert both.stamp.facts["processes"] == 2
        for one, other in zip(before.stamp.facts["epochs"], both.stamp.facts["epochs"], strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-4), name
        np.testing.assert_allclose(both.predictions.probability, before.predictions.probability, atol=1e-3)


def test_a_single_process_shares_nothing_and_waits_for_nobody() -> None:
    alone = Processes()
    rows, values = np.arange(5), torch.ones(3)
    np.testing.assert_array_equal(alone.share(rows), rows)
    assert alone.add(values) is values
    assert alone.first


def test_every_row_belongs_to_one_process() -> None:
    shares = [Processes(rank, 3).share(np.arange(7)) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(range(7))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_norm": "trained"}, "batch_norm: got 'trained', expected 'frozen' with several processes"),
        ({"batch_size": 2}, "torchrun: got 3 processes, expected at most batch_size, which is 2"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    project: Project, task: Task, settings: dict[str, object], message: str
) -> None:
    chosen, backbone = plan(unfreeze_from="first", **settings), loaded(project)
    inputs = Live(task, backbone.network, backbone.framing, chosen)
    with pytest.raises(InputError, match=message):
        fitting.trainer_of(task, inputs, backbone.network, chosen, "accuracy", 0, Processes(0, 3))


@pytest.mark.parametrize("unfreeze_from", ["first", "second"])
def test_in_every_thread_network_and_batches_go_to_the_process_s_own_device(
    project: Project, monkeypatch: pytest.MonkeyPatch, unfreeze_from: str
) -> None:
    """No GPU is needed: moves to a device are recorded and not made."""
    moved: set[tuple[str, torch.device]] = set()

    def note(thing: Any, *arguments: Any, **settings: Any) -> Any:
        named = [one for one in (*arguments, *settings.values()) if isinstance(one, torch.device)]
        moved.update((threading.current_thread().name, one) for one in named)
        return thing

    chosen, task, backbone = plan(unfreeze_from=unfreeze_from), task_of(project), loaded(project)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda where: contextlib.nullcontext(note(where, where)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", note)
    monkeypatch.setattr(torch.nn.Module, "to", note)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    source = examples_of(task, backbone, chosen, project.write().embed, Processes(3, 4))
    trainer = fitting.trainer_of(task, source, backbone.network, chosen, "accuracy", 0, Processes(3, 4))
    assert len(list(training._prefetch(lambda batch: trainer.batch(task.train, 0, batch), 2))) == 2
    assert {device for _, device in moved} == {torch.device("cuda", 3)}
    assert len({thread for thread, _ in moved}) == 2


def test_a_process_without_a_local_rank_has_local_rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Job schedulers set WORLD_SIZE, too."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert runtime.local_rank() == 0
