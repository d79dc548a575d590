"""Whenever `dvc repro` is killed: `headswap doctor --fix && dvc repro && headswap audit` ends well."""

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.core.processes import EMBED_LOCK
from tests.kills import Killer, TinyClone
from tests.soak import soak

OFTEN = {"compare": 4, "head": 3, "images": 2, "seed": 1}
"""The cheaper, the more often."""


@pytest.fixture
def killer(tmp_path: Path) -> Killer:
    (tmp_path / "clone").mkdir()
    return Killer(TinyClone(tmp_path / "clone"), random.Random(1))


@pytest.mark.parametrize("kills", [1, *soak([50])])
def test_after_every_kill_the_doctor_makes_the_next_run_end_well(killer: Killer, kills: int, preloaded: Path) -> None:
    if kills == 1:  # the way back is quick; that of many tells how long a run takes
        killer.clone.begin_with(preloaded)
        killer.clone.draw_nothing()
    # the very first run, amid its frozen pass: the lock is there as soon as that begins
    done = [killer.kill("nothing", begun=(killer.clone.root / EMBED_LOCK).exists, within=0.6)]
    killer.clone.commit()
    kinds = killer.generator.choices(list(OFTEN), list(OFTEN.values()), k=kills - 1)
    done += [killer.kill(kind) for kind in kinds]
    sys.stdout.write("".join(f"{json.dumps(asdict(one))}\n" for one in done))  # `pytest -s` shows it
