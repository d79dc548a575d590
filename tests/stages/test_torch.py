"""Which stages load no torch, which takes seconds."""

import subprocess
import sys

from tests.conftest import Project

MAIN = """
import sys
from pipeline.core import params
from pipeline.stages import curve, quality, survey, train
read = params.load()
for stage, arguments in ((quality, ()), (survey, ("tiny",)), (train, ("tiny", "logreg")), (curve, ("tiny",))):
    print(stage.main(read, *arguments))
    assert "torch" not in sys.modules, stage.__name__
"""


def test_what_works_on_embeddings_loads_no_torch(finished: Project) -> None:
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
