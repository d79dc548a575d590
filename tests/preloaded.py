"""`headswap`, `dvc` and a Python that begin with their libraries loaded: copies of one process, as real as any other.

Loading PyTorch, scikit-learn and DVC takes most of the time of a stage on a few images. A server loads them once, when
the first command comes; each command is a fork of it, with its own folder, environment, arguments and standard streams.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.clone import REPOSITORY

LIBRARIES = (
    "torch", "timm", "torchvision.transforms.v2", "h5py", "onnx", "openvino", "pyarrow.parquet", "altair", "vl_convert",
    "skops.io", "sklearn.svm", "sklearn.ensemble", "sklearn.neighbors", "sklearn.model_selection", "scipy.stats",
    "dvc.analytics", "dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.lock", "dvc.render", "dvc.render.match",
    "dvc.repo", "dvc.repo.experiments", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.metrics.diff", "dvc.repo.plots",
    "dvc.rwlock", "dvc.ui.table", "dulwich.client", "dulwich.porcelain", "dulwich.worktree", "networkx", "pygit2",
    "pyparsing",
)  # fmt: skip
STARTED_WITHIN = 300
"""Seconds, on a machine that has much else to do."""
UNDRAWN = "UNDRAWN"
"""The variable in whose presence `headswap` draws no chart."""
PYTHON = "loaded-python"
"""Takes a file, or a module after `-m`."""
COMMAND = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    answers = server.makefile()
    child = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(child, number))
    status = os.waitstatus_to_exitcode(int(answers.readline()))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@contextmanager
def commands(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Put the commands into a folder, to be put first on the path; they answer until the block ends."""
    address = folder / "socket"
    for name in ("headswap", "dvc", PYTHON):
        path = folder / name
        path.write_text(COMMAND.format(python=sys.executable, address=str(address)))
        path.chmod(0o755)
    command = [sys.executable, "-m", __name__, str(address)]
    server = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE)
    until = time.monotonic() + STARTED_WITHIN
    while not address.exists() and server.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert address.exists(), "the server has not started"
    try:
        yield
    finally:
        server.communicate()  # it ends with its input


def serve(address: str) -> None:
    """Answer until standard input ends; load everything before the first answer."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        loaded = False
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            if not loaded:
                _load()
                loaded = True
            _answer(asking, listening)


def _load() -> None:
    import pipeline  # the server's alone

    for name in LIBRARIES:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith(("__main__", "dask_backend")):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # or every fork would copy all that it looks through


def _answer(asking: socket.socket, listening: socket.socket) -> None:
    """Begin what is asked for; tell its number now and its exit status once it has ended."""
    size, streams, _, _ = socket.recv_fds(asking, 8, 3)
    name, arguments, folder, environment = json.loads(asking.makefile("rb").read(int.from_bytes(size, "big")))
    child = os.fork()
    if not child:
        listening.close()
        asking.close()
        _run(name, arguments, folder, environment, streams)
    for stream in streams:
        os.close(stream)
    asking.sendall(f"{child}\n".encode())
    threading.Thread(target=_wait, args=(child, asking), daemon=True).start()


def _wait(child: int, asking: socket.socket) -> None:
    with asking:
        asking.sendall(f"{os.waitpid(child, 0)[1]}\n".encode())


def _run(name: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Become the command; never returns."""
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [name, *arguments]
        sys.stdin = open(0)  # noqa: SIM115  # the server's has the end of the tests to wait for
        _entry(name)
    except SystemExit as ended:
        _end(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except BaseException:  # noqa: BLE001  # this copy must not go on as a server
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    _end(1)


def _entry(name: str) -> Any:
    if name == "headswap":
        from pipeline.__main__ import run

        if UNDRAWN in os.environ:
            _leave_charts_out()
        run()
    if name == PYTHON:
        _run_python(sys.argv[1:])
        _end(0)
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))


def _run_python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _leave_charts_out() -> None:
    import pytest

    from tests.stages.spine import undrawn

    undrawn(pytest.MonkeyPatch())


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
