"""Two processes on the CPU, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import runs, stamps
from pipeline.errors import InputError
from pipeline.nn.finetuning import fitting
from pipeline.nn.finetuning.examples import Live
from pipeline.nn.finetuning.processes import Processes
from pipeline.nn.finetuning.task import Task
from pipeline.stages import embed, finetune, prepare
from tests.conftest import REPOSITORY, Project
from tests.nn.finetuning.examples import loaded, plan

MAIN = """
import sys
sys.path.insert(0, {repository!r})
from pipeline import params
from pipeline.nn import backbones
from pipeline.stages import finetune
from tests.conftest import TINY
backbones.BACKBONES["tiny"] = TINY
print(finetune.main(params.load(), "tiny", "last"))
"""


def in_two_processes() -> str:
    """Run the stage in two processes that share every batch; return what they say."""
    Path("main.py").write_text(MAIN.format(repository=str(REPOSITORY)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(torchrun, env=settings, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_frozen": True, "mixup": 0.4, "class_weight": "balanced"},
        {"unfreeze_from": "first", "accumulate": 2, "clip": 1.0, "average": 0.5, "thaw_epochs": 1},
    ],
    ids=["stored", "whole"],
)
def test_two_processes_end_as_one_does_at_the_same_global_batch(project: Project, settings: dict[str, Any]) -> None:
    entry = {"unfreeze_from": "second", "epochs": 3, "batch_size": 5, "learning_rate": 0.01, **settings}
    params = project.write(plans={"last": entry})
    prepare.main(params)
    embed.main(params, "tiny")
    finetune.main(params, "tiny", "last")
    alone, losses = runs.read("tiny", "last"), stamps.read(runs.stamp_path("tiny", "last")).facts["epochs"]
    said = in_two_processes()
    assert "epochs" in said
    assert "process 1 of 2: done" in said
    both = runs.read("tiny", "last")
    assert both.stamp.facts["processes"] == 2
    for one, other in zip(losses, both.stamp.facts["epochs"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
    np.testing.assert_allclose(both.predictions.probability, alone.predictions.probability, atol=1e-3)


def test_alone_nothing_is_shared_or_waited_for() -> None:
    alone = Processes()
    rows, values = np.arange(5), torch.ones(3)
    np.testing.assert_array_equal(alone.share(rows), rows)
    assert alone.add(values) is values
    assert alone.first


def test_every_row_is_some_processes_share() -> None:
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
