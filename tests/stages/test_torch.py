"""What loads no torch, which takes seconds."""

import subprocess
import sys

from pipeline.heads import HEADS
from tests.conftest import Project
from tests.heads.examples import QUICK
from tests.heads.test_saving import NETWORKS

MAIN = f"""
import sys
from pathlib import Path
import numpy as np
import pipeline.cli
from pipeline import heads
from pipeline.core import params
from pipeline.core.sections import Selection
from pipeline.stages import curve, quality, survey, train
read = params.load()
for stage, arguments in ((quality, ()), (survey, ("tiny",)), (train, ("tiny", "logreg")), (curve, ("tiny",))):
    print(stage.main(read, *arguments))
    assert "torch" not in sys.modules, stage.__name__
rows = heads.Rows.of(np.random.default_rng(0).normal(size=(40, 3)), np.array(["a", "b"] * 20))
for name, quick in {[(name, QUICK.get(name, {})) for name in HEADS if name not in NETWORKS]!r}:
    chosen = heads.fit(name, {{**quick, "calibrate": "temperature"}}, rows, rows, Selection(metric="accuracy"), 0)
    heads.save(Path("saved") / name, chosen.model)
    assert "torch" not in sys.modules, name
"""


def test_neither_what_works_on_embeddings_nor_a_scikit_learn_head_loads_torch(finished: Project) -> None:
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
