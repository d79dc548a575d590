"""A repository for the doctor, and what a killed run leaves in it."""

import subprocess
from pathlib import Path

import pytest

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


GOOD = b"""schema: '2.0'
stages:
  prepare:
    cmd: headswap prepare
    outs:
    - path: data/manifest.json
      hash: md5
      md5: ba5f1736a499f29146ab1de5980161e8
      size: 100
"""


CUT = GOOD[: GOOD.index(b" 100")]


UNUSABLE = {
    "empty": b"\n",
    "cut short in a name": GOOD[:-90],
    "cut short in a way that is YAML": CUT,
    "of another shape": b"a: 1\n",
    "only zeros": bytes(100),
    "no schema": GOOD.partition(b"\n")[2],
}


Said = pytest.CaptureFixture[str]


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


def commit_lock(content: bytes) -> None:
    LOCK.write_bytes(content)
    git("add", str(LOCK))
    git("commit", "--quiet", "-m", "lock")


def files() -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] not in (".git", ".dvc")
    }


def write_stand_in() -> Path:
    """Write a `headswap` that takes for ever."""
    stand_in = Path("bin/headswap").absolute()
    stand_in.parent.mkdir()
    stand_in.write_text("#!/usr/bin/env python3\nimport time\ntime.sleep(600)\n")
    stand_in.chmod(0o755)
    return stand_in
