"""How the suite is started decides no test."""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_it_passes_in_the_background_and_with_nothing_on_the_path() -> None:
    background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [*background, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "interrupt or eval"]
    command += ["tests/networks/test_units.py", "tests/test_lint.py"]
    environment = {**os.environ, "PATH": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
