"""The linter refuses what would let a file execute or leave its folder."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "code",
    [
        "import joblib\njoblib.load(path)",
        "from joblib import load",
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import shutil\nshutil.unpack_archive(path)",
        "eval(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_a_line_that_trusts_a_file_is_refused(code: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise"]
    command += ["--stdin-filename", "pipeline/hostile.py", "-"]
    done = subprocess.run(command, cwd=REPOSITORY, input=code, capture_output=True, text=True, check=False)
    assert any(rule in done.stdout for rule in ("TID251", " S")), done.stdout


def test_no_yaml_reader_of_the_pipeline_builds_objects() -> None:
    readers = [
        line
        for path in (REPOSITORY / "pipeline").rglob("*.py")
        for line in path.read_text().splitlines()
        if "YAML(" in line
    ]
    assert readers
    assert all('YAML(typ="safe")' in line for line in readers)
