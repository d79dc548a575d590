"""The tests marked `processors`, run as if on other processors: `python -m tests.processors`.

OpenBLAS, MKL, oneDNN and PyTorch choose their kernels by the processor and can be told to take those of another. Of
x86 alone, and of what it can do itself: nothing else can be simulated. ONNX Runtime and OpenVINO cannot be told.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

MANY = 3
"""Processors that are acted, of those that can be the most capable ones."""
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")
"""PyTorch's names for what a processor can do, each containing the ones before."""
MARK = "mark.processors"


class Processor(NamedTuple):
    """A processor by the names of its kernels."""

    openblas: str
    mkl: str
    onednn: str
    torch: str
    needs: str = "DEFAULT"
    """The least capability of a machine that can run them."""

    def environment(self) -> dict[str, str]:
        """Return what makes the libraries take this processor's kernels."""
        return {
            "OPENBLAS_CORETYPE": self.openblas,
            "MKL_ENABLE_INSTRUCTIONS": self.mkl,
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "ATEN_CPU_CAPABILITY": self.torch.lower(),
        }


# OpenBLAS has no kernels for AMD's: it runs Zen on Haswell's, which are those of every processor with AVX2 alone.
PROCESSORS = (  # each can do what the ones before can
    Processor("Nehalem", "SSE4_2", "SSE41", "DEFAULT"),
    Processor("Sandybridge", "AVX", "AVX", "DEFAULT"),
    Processor("Haswell", "AVX2", "AVX2", "AVX2", needs="AVX2"),
    Processor("SkylakeX", "AVX512", "AVX512_CORE", "AVX512", needs="AVX512"),
)


def running() -> dict[str, set[str]]:
    """Return whose kernels OpenBLAS and PyTorch run in this process."""
    import scipy.linalg  # noqa: F401  # it brings an OpenBLAS of its own
    import torch
    from threadpoolctl import threadpool_info

    openblas = {one["architecture"] for one in threadpool_info() if one["internal_api"] == "openblas"}
    return {"OpenBLAS": openblas, "PyTorch": {torch.backends.cpu.get_cpu_capability()}}


def problem(wanted: Processor) -> str | None:
    """Say what in this process is not as on that processor; None if nothing is."""
    expected, found = {"OpenBLAS": {wanted.openblas}, "PyTorch": {wanted.torch}}, running()
    if found == expected:
        return None
    return f"{wanted.openblas}: expected the kernels {expected}, got {found}: the simulation has no effect"


def run(wanted: Processor, chosen: Sequence[str]) -> int:
    """Run the marked tests in this process, which must have that processor's environment."""
    import pytest

    if found := problem(wanted):
        print(found)
        return 1
    print(f"{wanted.openblas}: {running()}", flush=True)
    files = [str(path) for path in sorted(Path(__file__).parent.rglob("test_*.py")) if MARK in path.read_text()]
    return int(pytest.main(["-q", "-m", "processors", "-p", "no:cacheprovider", *files, *chosen]))


def _as(wanted: Processor, chosen: Sequence[str]) -> int:
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.processors", wanted.openblas, *chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **wanted.environment()}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.monotonic() - begun
    print(f"{done.stdout}{wanted.openblas}: exit status {done.returncode}, {seconds:.0f} s", flush=True)
    return done.returncode


def main(chosen: Sequence[str]) -> int:
    """Run the marked tests as on three processors that this machine can act, side by side; 1 if any fail."""
    import torch

    if platform.machine().lower() not in {"x86_64", "amd64"}:
        print(f"this processor is {platform.machine()}: only those of x86 can be simulated, and only on one of them")
        return 0
    able = CAPABILITIES.index(torch.backends.cpu.get_cpu_capability())
    acted = [one for one in PROCESSORS if CAPABILITIES.index(one.needs) <= able]
    for one in PROCESSORS[len(acted) :]:
        print(f"{one.openblas}: left out, for this processor has no {one.needs}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return int(any(list(pool.map(lambda one: _as(one, chosen), acted[-MANY:]))))


def on_threads(code: str) -> set[bytes]:
    """Run code in fresh processes, on one thread and on two; return what they print."""
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number},
        )
        for number in ("1", "2")
    ]
    said = [process.communicate()[0] for process in begun]
    assert all(process.returncode == 0 for process in begun)
    return set(said)


if __name__ == "__main__":
    of = {one.openblas: one for one in PROCESSORS}
    sys.exit(run(of[sys.argv[1]], sys.argv[2:]) if sys.argv[1:2] and sys.argv[1] in of else main(sys.argv[1:]))
