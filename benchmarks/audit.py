"""The audit: how fast it reads, how long the demo takes it, and whether it ever cries wolf."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, at_least, at_most, main_job, median_seconds
from pipeline.lineage.audit import digests

BLOCK = 1 << 24
LARGE = 1 << 30
"""Bytes."""
CLEAN = 20


def measure() -> Iterator[Figure]:
    """Read large files as the audit does; then audit the demo, again and again."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("one", "other")]
        for file in files:
            _write(file)
        for number in (1, 2):
            wanted = [(str(file), algorithm) for file in files[:number] for algorithm in ("sha256", "md5")]
            seconds = median_seconds(lambda: digests.read(wanted), times=3)  # noqa: B023  # called before it changes
            name = f"files of 1 GiB, sha256 and md5 of each: {number}"
            yield at_least(name, number * LARGE / 1e6 / seconds, "MB/s", 500)

    job = main_job()
    yield at_most("full audit of the demo (median of 5)", median_seconds(lambda: _audit(job.clone.root)), "s", 10)
    quick = median_seconds(lambda: _audit(job.clone.root, "--quick"))
    yield Figure("quick audit of the demo (median of 5)", quick, "s")
    alarms = sum(_audit(job.clone.root) for _ in range(CLEAN))
    yield at_most(f"false alarms in {CLEAN} audits of the untouched demo", alarms, "", 0)


def _write(file: Path) -> None:
    with file.open("wb") as stream:
        for _ in range(LARGE // BLOCK):
            stream.write(os.urandom(BLOCK))


def _audit(root: Path, *flags: str) -> bool:
    """Audit a project; return whether anything was found."""
    return subprocess.run(["headswap", "audit", *flags], cwd=root, capture_output=True, check=False).returncode != 0
