"""Real clusters on this machine: a scheduler or a head, and workers, each in processes of their own."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
PATIENCE = 90.0
STRANGERS = Path(__file__).parent / "strangers"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # whatever token this machine may have
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {PATIENCE:.0f} s"
        time.sleep(0.05)


def end(process: Process) -> None:
    """Kill a process and all that it has started, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


class Cluster(ABC):
    """Processes in groups of their own, no worker at first; nothing else is ever ended."""

    host = "127.0.0.1"
    environment: Mapping[str, str] = {}

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the head, in an environment of its own if need be."""
        self.folder = Path(tempfile.mkdtemp(prefix="hs-"))  # short: it holds sockets
        self.port = free_port()
        self.logs = 0
        self.head = self._begin(*self._head(), environment=environment)
        self.workers: list[Process] = []
        wait_for(lambda: self._answers() and self.there() == 0, "a head")

    @property
    @abstractmethod
    def setting(self) -> dict[str, Any]:
        """What params.yaml says."""

    @abstractmethod
    def _head(self) -> list[str]: ...

    @abstractmethod
    def _worker(self) -> list[str]: ...

    @abstractmethod
    def there(self) -> int:
        """How many workers the cluster knows."""

    @abstractmethod
    def complete(self) -> None:
        """Start what is missing of two slots."""

    def add(self, environment: Mapping[str, str] | None = None) -> None:
        """Start one more worker, and wait until the cluster knows it: of two at once Ray may leave one waiting."""
        before = self.there()
        self.workers.append(self._begin(*self._worker(), environment=environment))
        wait_for(lambda: self.there() > before, "a worker")

    def remove(self, *processes: Process) -> None:
        """Kill workers, and wait until the cluster has noticed."""
        for process in processes:
            end(process)
            self.workers.remove(process)
        wait_for(lambda: self.there() <= len(self.workers), "the end of a worker")

    def stop(self) -> None:
        for process in [*self.workers, self.head]:
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        self.logs += 1
        with (self.folder / f"{self.logs}.log").open("wb") as stream:
            return subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False


class Dask(Cluster):
    """A scheduler and workers with nannies, which start a killed worker again."""

    @property
    def setting(self) -> dict[str, Any]:
        return {"backend": "dask", "address": f"tcp://{self.host}:{self.port}"}

    def _head(self) -> list[str]:
        return [f"{BIN}/dask", "scheduler", "--host", self.host, "--port", str(self.port), "--no-dashboard"]

    def _worker(self) -> list[str]:
        place = ["--host", self.host, "--local-directory", str(self.folder), "--no-dashboard"]
        return [f"{BIN}/dask", "worker", self.setting["address"], "--nthreads", "1", *place]

    def complete(self) -> None:
        while len(self.workers) < 2:
            self.add()

    def there(self) -> int:
        from distributed import Client

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a worker that differs
            client = Client(self.setting["address"], set_as_default=False)
        with client:
            return len(client.scheduler_info()["workers"])


class Ray(Cluster):
    """A head that computes nothing, and a node of two CPUs; further ones have one."""

    cpus = 1

    host = "127.0.0.2"  # 127.0.0.1 it takes for a wish to be reached from elsewhere

    @property
    def setting(self) -> dict[str, Any]:
        return {"backend": "ray", "address": f"{self.host}:{self.port}"}

    def _head(self) -> list[str]:
        # A node that is gone is noticed after a second and a half, not half a minute.
        health = {"period_ms": 500, "timeout_ms": 500, "failure_threshold": 3, "initial_delay_ms": 0}
        self.environment = {f"RAY_health_check_{name}": str(value) for name, value in health.items()} | QUIET
        start = ["--head", "--port", str(self.port), "--num-cpus", "0", "--include-dashboard=false"]
        return self._start(0, *start, "--temp-dir", str(self.folder), "--disable-usage-stats")

    def _worker(self) -> list[str]:
        return self._start(self.logs, "--address", self.setting["address"], "--num-cpus", str(self.cpus))

    def _start(self, number: int, *options: str) -> list[str]:
        ports = ["--min-worker-port", str(20000 + 500 * number), "--max-worker-port", str(20499 + 500 * number)]
        memory = ["--object-store-memory", "100000000", "--node-ip-address", self.host]
        return [f"{BIN}/ray", "start", "--block", *options, *ports, *memory]

    def complete(self) -> None:
        if not self.workers:
            self.cpus = 2
            self.add()
            self.cpus = 1

    def there(self) -> int:
        """Ask from a process of its own: one that has joined would end with the head."""
        asked = (
            "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR');"
            "print('there', sum(node['Alive'] and node['Resources'].get('CPU', 0) > 0 for node in ray.nodes()))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", asked, self.setting["address"]], capture_output=True, text=True, check=False,
            env={**os.environ, **QUIET},
        )  # fmt: skip
        found = re.findall(r"^there (\d+)$", answer.stdout, re.MULTILINE)
        return int(found[0]) if found else -1  # the head is not ready yet
