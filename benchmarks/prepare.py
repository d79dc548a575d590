"""The list of images: how fast 100,000 files are hashed beside `sha256sum`, and how long a run without news takes."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline.data.sources.memo import MEMO, SETTLED_NS

FILES, CLASSES, BYTES, ROUNDS = 100_000, 100, 30_000, 3
BESIDE = "find data/raw -type f -print0 | xargs -0 -P2 sha256sum > /dev/null"


def measure() -> Iterator[Figure]:
    """Lay the files out, read them in turn with both, then change nothing; remove them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _lay_out(folder)
        beside, first, peaks = [], [], list[float]()
        for _ in range(ROUNDS):  # in turn, for other jobs on the machine slow down both
            beside.append(seconds(lambda: subprocess.run(["sh", "-c", BESIDE], cwd=folder, check=True)))
            (folder / MEMO).unlink(missing_ok=True)
            first.append(_prepare(folder, peaks))
        took, other = statistics.median(first), statistics.median(beside)
        told = f"`prepare` on {FILES:,} files, of the speed of `xargs -P2 sha256sum` ({took:.1f} s, {other:.1f} s)"
        yield at_least(told, other / took, "x", 0.5)
        again = statistics.median(_prepare(folder, peaks) for _ in range(ROUNDS))
        yield at_most(f"again with nothing changed, the whole command (median of {ROUNDS})", again, "s", 3)
        yield Figure("of the first run's time", 100 * again / took, "%")
        yield at_most("peak memory", max(peaks), "MB", 500)


def _lay_out(folder: Path) -> None:
    """Write files of about 30 KB, no two alike, and wait until their times are past doubt."""
    noise = os.urandom(1 << 20)
    for number in range(FILES):
        path = folder / f"data/raw/{number % CLASSES:02}/{number:06}.jpg"
        if number < CLASSES:
            path.parent.mkdir(parents=True)
        start = number * 7919 % (len(noise) - 2 * BYTES)
        path.write_bytes(number.to_bytes(8, "big") + noise[start : start + BYTES // 2 + number * 37 % BYTES])
    yaml = YAML()
    content = yaml.load(REPOSITORY / "params.yaml")
    content["data"] |= {"source": "image_folder", "path": "data/raw"}
    yaml.dump(content, folder / "params.yaml")
    time.sleep(1.5 * SETTLED_NS / 1e9)


def _prepare(folder: Path, peaks: list[float]) -> float:
    """Run it; return its seconds, and add its peak memory in MB."""
    command = shutil.which("headswap", path=str(Path(sys.executable).parent)) or "headswap"
    start = time.perf_counter()
    process = os.posix_spawn(
        "/bin/sh", ["sh", "-c", 'cd "$1" && exec "$0" prepare > /dev/null', command, str(folder)], os.environ
    )
    _, status, used = os.wait4(process, 0)
    if status:
        raise AssertionError(f"headswap prepare ended with {os.waitstatus_to_exitcode(status)}")
    peaks.append(used.ru_maxrss * 1024 / 1e6)
    return time.perf_counter() - start
