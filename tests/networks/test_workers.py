"""What a worker does with a unit, here in this process."""

import os
import pickle
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.cluster import agreement
from pipeline.core import cost, stamps
from pipeline.core.errors import InputError, StateError
from pipeline.embeddings.shard_writer import TooNarrowError
from pipeline.embeddings.shards import Shard, keys_of, read_shard
from pipeline.networks import backbones, frozen_pass, runtime, workers
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job
from tests.conftest import Project
from tests.networks.jobs import items_of, job_of

ME = agreement.worker()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Forget what earlier tests loaded, as a new process would have nothing."""
    workers._network.cache_clear()
    workers._remote.cache_clear()


def shards(job: Job) -> list[Shard]:
    return [read_shard(path) for path in job.cache.glob("*/*.h5")]


class TestEmbed:
    def test_a_unit_becomes_one_shard_with_the_workers_name(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        assert workers.embed(job, items) == {}
        (shard,) = shards(job)
        assert shard.worker == ME
        assert shard.keys.tolist() == keys_of(item.sha256 for item in items).tolist()
        assert shard.path.parent.name == stamps.sha256_json(job.recipe)
        assert shard.cost.seconds > 0

    def test_its_energy_is_not_recorded_since_workers_share_the_machine(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Meter:
            def read(self) -> float:
                return 7.0

        monkeypatch.setattr(cost, "_energy", Meter)
        job = job_of(project)
        workers.embed(job, items_of(project))
        assert [shard.cost.joules for shard in shards(job)] == [None]

    def test_its_rows_are_those_of_a_pass_in_one_process(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        workers.embed(job, items)
        loaded = backbones.load("tiny", job.entry)
        forward = runtime.prepare(loaded.network, "torch", np.zeros((4, 3, 32, 32), np.uint8))
        expected = np.concatenate([rows for _, rows in frozen_pass.rows(items, forward, loaded.framing, 4)])
        np.testing.assert_array_equal(shards(job)[0].features, expected.astype(np.float16))

    def test_a_job_and_its_items_arrive_as_they_were_sent(self, project: Project) -> None:
        sent = job_of(project), items_of(project)
        assert pickle.loads(pickle.dumps(sent)) == sent

    def test_an_image_that_cannot_be_decoded_is_reported_and_the_others_are_kept(self, project: Project) -> None:
        project.images[2].write_bytes(b"no image")
        job, items = job_of(project), items_of(project)
        skipped = workers.embed(job, items)
        assert list(skipped) == [items[2].sha256]
        assert "not an image" in skipped[items[2].sha256]
        assert len(shards(job)[0].keys) == 5

    def test_errors_name_the_worker(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        project.images[1].write_bytes(b"changed")
        with pytest.raises(StateError, match=f"^worker {ME}: {items[1].path}: changed since `prepare` hashed it"):
            workers.embed(job, items)

    def test_errors_keep_their_type_when_pickled(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        def narrow(*_: object, **__: object) -> dict[str, str]:
            raise TooNarrowError("too narrow", "much")

        monkeypatch.setattr(frozen_pass, "run", narrow)
        with pytest.raises(TooNarrowError) as caught:
            workers.embed(job_of(project), items_of(project))
        arrived = pickle.loads(pickle.dumps(caught.value))
        assert type(arrived) is TooNarrowError
        assert arrived.problems == (f"worker {ME}: too narrow", f"worker {ME}: much")

    def test_a_gpu_that_pytorch_does_not_find_is_an_error(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
        job = replace(job_of(project), gpu=True)
        with pytest.raises(StateError, match=f"worker {ME}: was given a GPU by its engine, but PyTorch finds none"):
            workers.embed(job, items_of(project))
        assert not shards(job)

    def test_the_network_is_loaded_once(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        loads, real = [], backbones.load
        monkeypatch.setattr(backbones, "load", lambda *args: loads.append(args) or real(*args))
        job, items = job_of(project), items_of(project)
        loads.clear()
        workers.embed(job, items[:3])
        workers.embed(job, items[3:])
        assert len(loads) == 1

    def test_a_long_lived_worker_can_change_the_batch_size(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def strict(network: nn.Module, example: runtime.Batch) -> runtime.Forward:
            forward = runtime._torch(network, example)

            def as_prepared(batch: runtime.Batch) -> runtime.Floats:
                assert batch.shape == example.shape  # OpenVINO and ONNX Runtime demand it
                return forward(batch)

            return as_prepared

        monkeypatch.setitem(runtime.RUNTIMES, "openvino", strict)  # type: ignore[arg-type]
        items = items_of(project)
        for size in (4, 2):
            workers.embed(job_of(project, embed={"runtime": "openvino", "batch_size": size}), items[size:])

    def test_it_decodes_on_few_threads_where_it_may_compute_on_few(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, real = set[int](), frozen_pass.load

        def load(*args: Any) -> frozen_pass.Pixels:
            seen.add(threading.get_ident())
            time.sleep(0.01)  # so that each image needs a thread that is free
            return real(*args)

        monkeypatch.setattr(frozen_pass, "load", load)
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        workers.embed(job_of(project), items_of(project, 36))
        assert 1 < len(seen) <= 1 + 4


@pytest.fixture(params=["file", "memory"])
def remote(request: pytest.FixtureRequest, project: Project) -> tuple[str, Job, list[Item]]:
    """Put the images where only a URL leads; a store that lacks them is what the items' paths are in."""
    memory, far = fsspec.filesystem("memory"), project.root / "far"
    root = f"file://{far}" if request.param == "file" else "memory://photos"
    items = []
    for item in items_of(project):
        content = item.path.read_bytes()
        (far / item.name).parent.mkdir(parents=True, exist_ok=True)
        (far / item.name).write_bytes(content)
        memory.pipe(f"/photos/{item.name}", content)
        items.append(replace(item, path=Path(".headswap/images") / item.sha256[:2] / item.sha256))
    return root, job_of(project, data={"source": "table", "path": "labels.csv", "remote": root}), items


def overwrite(root: str, name: str, content: bytes) -> None:
    with fsspec.open(f"{root}/{name}", "wb") as stream:
        stream.write(content)


class TestRemoteImages:
    def test_a_worker_without_the_store_reads_them_from_their_root(self, remote: tuple[str, Job, list[Item]]) -> None:
        _, job, items = remote
        assert workers.embed(job, items) == {}
        assert len(shards(job)[0].keys) == 6
        assert not Path(".headswap/images").exists()

    def test_one_that_has_changed_there_is_refused(self, remote: tuple[str, Job, list[Item]]) -> None:
        root, job, items = remote
        overwrite(root, items[3].name, b"other")
        with pytest.raises(
            StateError, match=f"^worker {ME}: {root}/{items[3].name}: changed since `prepare` hashed it"
        ):
            workers.embed(job, items)

    def test_a_missing_one_is_named(self, remote: tuple[str, Job, list[Item]]) -> None:
        root, job, items = remote
        gone = replace(items[0], name="red/gone.png")
        with pytest.raises(InputError, match=f"^worker {ME}: {root}/red/gone.png: (cannot be read|no such)"):
            workers.embed(job, [gone])

    def test_what_the_store_has_is_not_fetched(
        self, remote: tuple[str, Job, list[Item]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, job, items = remote
        for item in items:
            item.path.parent.mkdir(parents=True, exist_ok=True)
            item.path.write_bytes(Path("far", item.name).read_bytes())
        monkeypatch.setattr(workers, "_remote", None)
        assert workers.embed(job, items) == {}


class TestFolders:
    def test_a_worker_changes_into_the_project_and_back(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        job, items = job_of(project), items_of(project)
        other = tmp_path_factory.mktemp("other")
        monkeypatch.chdir(other)
        workers.embed(job, items)
        assert Path.cwd() == other
        assert not list(other.iterdir())
        assert len(shards(job)) == 1

    def test_without_the_project_a_worker_uses_a_scratch_folder(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        far = project.root / "data/raw"
        entry = {"weights": str(project.root / "tiny.pth")}
        entry = {"tiny": {**project.content["backbones"]["tiny"], **entry}}
        shared = {"cache": str(project.root / "shared")}
        data = {"source": "table", "path": "labels.csv", "remote": f"file://{far}"}
        job = replace(job_of(project, backbones=entry, embed=shared, data=data), project=Path("/nowhere/at/all"))
        items = [replace(item, path=Path("none")) for item in items_of(project)]
        here = tmp_path_factory.mktemp("here")
        monkeypatch.chdir(here)
        workers.embed(job, items)
        assert Path.cwd() == here
        assert not list(here.iterdir())
        assert len(shards(job)) == 1
