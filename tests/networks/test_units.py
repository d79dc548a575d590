"""Dealing images to workers, through a cluster that is this process."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster.connection import WorkersLostError
from pipeline.cluster.remote import ROUNDS, RemoteCluster
from pipeline.core.errors import StateError
from pipeline.core.stamps import sha256_bytes, sha256_file
from pipeline.data import manifest
from pipeline.embeddings import cache, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import keys_of, read_shard
from pipeline.networks import backbones, frozen_pass, units, workers
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job
from pipeline.stages import prepare
from tests.conftest import Project


class Here:
    """Does each unit when it is asked for, until the script says that its worker is lost."""

    rounds = RemoteCluster.rounds

    def __init__(self, *lost_after: int, gpus: int = 0) -> None:
        self.lost_after, self.gpus = iter(lost_after), gpus
        self.dealt = list[Sequence[Sequence[Item]]]()
        self.gpu: bool | None = None

    def slots(self, *, gpu: bool = False) -> int:
        return self.gpus if gpu else 2

    def each(self, function: Callable[[Any], Any], tasks: Sequence[Any], *, gpu: bool = False) -> Iterator[Any]:
        self.dealt.append(tasks)
        self.gpu = gpu
        left = next(self.lost_after, len(tasks))
        for task in tasks[:left]:
            yield None
            yield function(task)
        if left < len(tasks):
            raise WorkersLostError("params.yaml: embed.engine: gone: one")


class Pass:
    """A pass over the tiny project, ready to run."""

    def __init__(self, project: Project, **embed: Any) -> None:
        params = project.write(embed=embed)
        prepare.main(params)
        self.table = manifest.read()
        rows = zip(self.table.path, self.table.sha256, strict=True)
        self.items = [Item(Path(path), sha256) for path, sha256 in rows]
        recipe = frozen_pass.recipe_of(backbones.load("tiny", params.backbone("tiny")).identity, params.embed)
        self.job = Job(Path.cwd(), "tiny", params.backbone("tiny"), params.embed, params.data, recipe)
        self.cached = EmbeddingCache(params.embed.cache, recipe)

    def run(self, cluster: Here) -> dict[str, str]:
        return units.run(cluster, self.job, self.cached, self.items)  # type: ignore[arg-type]

    def rows(self) -> list[int]:
        """The rows of each shard."""
        shards = [read_shard(path) for path in self.cached.folder.glob("*.h5")]
        assert len(set(np.concatenate([shard.keys for shard in shards]))) == sum(len(shard.keys) for shard in shards)
        return sorted(len(shard.keys) for shard in shards)

    def missing(self) -> int:
        return len(self.cached.missing(keys_of(item.sha256 for item in self.items)))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    workers._network.cache_clear()
    monkeypatch.setattr(cache, "SEEN_WITHIN", 0.0)


class TestUnits:
    @given(st.integers(0, 100_000), st.integers(1, 300), st.integers(1, 4096))
    def test_they_are_the_items_in_order_in_whole_batches(self, number: int, slots: int, batch: int) -> None:
        dealt = units.units(range(number), slots, batch)  # type: ignore[arg-type]
        edges = [(unit.start, unit.stop) for unit in dealt]  # type: ignore[attr-defined]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges)][: len(edges)]
        assert not edges or edges[-1][1] == number
        assert all((stop - start) % batch == 0 for start, stop in edges[:-1])

    @given(st.integers(1, 100_000), st.integers(1, 300), st.integers(1, 4096))
    def test_there_are_many_of_similar_size_and_none_too_large(self, number: int, slots: int, batch: int) -> None:
        sizes = [len(unit) for unit in units.units(range(number), slots, batch)]  # type: ignore[arg-type]
        batches = [-(-size // batch) for size in sizes]
        assert max(batches) <= max(1, 4096 // batch)
        assert max(batches) - min(batches) <= 1
        assert min(batches) > 0
        assert len(sizes) >= min(sum(batches), slots * 8)

    def test_more_workers_than_batches_get_one_each(self) -> None:
        assert [len(unit) for unit in units.units([None] * 10, 100, 4)] == [4, 4, 2]  # type: ignore[list-item]

    def test_a_million_images_are_split_for_a_thousand_workers(self) -> None:
        dealt = units.units(range(1_000_000), 1000, 32)  # type: ignore[arg-type]
        assert {len(unit) for unit in dealt} <= {96, 128, 64}
        assert len(dealt) == 8000


class TestRun:
    def test_every_row_is_computed_once_and_by_this_worker(self, project: Project, forwards: Callable[[], int]) -> None:
        made, cluster = Pass(project), Here()
        assert made.run(cluster) == {}
        assert made.rows() == [4] * 9
        assert made.missing() == 0
        assert forwards() == 36
        assert made.run(cluster) == {}
        assert len(cluster.dealt) == 1

    def test_bad_images_are_reported_and_not_waited_for(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "SEEN_WITHIN", 5.0)
        for number in (0, 1):
            project.images[number].write_bytes(b"no image %d" % number)
        made = Pass(project)
        skipped = made.run(Here())
        assert skipped.keys() == {sha256_file(path) for path in project.images[:2]}
        assert all("not an image" in reason for reason in skipped.values())
        assert sum(made.rows()) == 34

    def test_after_lost_workers_only_the_rest_is_handed_out(
        self, project: Project, forwards: Callable[[], int]
    ) -> None:
        project.images[0].write_bytes(b"no image")
        made, cluster = Pass(project), Here(3, 2)
        assert list(made.run(cluster)) == [sha256_bytes(b"no image")]
        assert [sum(map(len, dealt)) for dealt in cluster.dealt] == [36, 24, 16]
        assert sum(made.rows()) == forwards() == 35

    def test_workers_lost_too_often_end_the_pass_and_their_rows_stay(self, project: Project) -> None:
        made, cluster = Pass(project), Here(1, 1, 1)
        with pytest.raises(StateError, match=r"gone: one \(3 times\)"):
            made.run(cluster)
        assert made.rows() == [4, 4, 4]
        assert len(cluster.dealt) == 3

    def test_rows_that_another_machine_sees_late_are_waited_for(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "SEEN_WITHIN", 5.0)
        monkeypatch.setattr(cache, "PAUSE", 0.01)
        made, real, looks = Pass(project), EmbeddingCache.refresh, iter(range(30))
        monkeypatch.setattr(EmbeddingCache, "refresh", lambda self: [] if next(looks, None) is not None else real(self))
        made.run(Here())
        assert made.missing() == 0
        assert list(looks) == []

    def test_further_views_are_rows_of_their_own(self, project: Project) -> None:
        made = Pass(project, copies=2)
        one = made.items[0]
        made.items = [Item(one.path, one.sha256, view) for view in (1, 2, 3)]
        made.run(Here())
        assert made.rows() == [3]

    @pytest.mark.parametrize(("runtime", "gpu"), [("torch", True), ("openvino", False)])
    def test_gpus_are_asked_for_only_where_the_runtime_uses_them(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, runtime: str, gpu: bool
    ) -> None:
        jobs = list[Job]()
        monkeypatch.setattr(workers, "embed", lambda job, items: jobs.append(job) or {})
        cluster = Here(gpus=1)
        Pass(project, runtime=runtime).run(cluster)
        assert cluster.gpu is gpu
        assert {job.gpu for job in jobs} == {gpu}

    def test_each_workers_share_is_reported_at_the_end(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Pass(project).run(Here())
        assert f"embed: {workers.agreement.worker()}: 36 images, " in capsys.readouterr().err

    def test_a_merge_meanwhile_counts_as_no_workers_share(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        real = workers.embed

        def embed(job: Job, items: Sequence[Item]) -> Mapping[str, str]:
            done = real(job, items)
            made.cached.refresh()
            upkeep.merge(upkeep.recipes(job.settings.cache)[0])
            return done

        monkeypatch.setattr(workers, "embed", embed)
        made = Pass(project)
        made.run(Here())
        assert made.rows() == [36]
        assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("embed: ")] == []

    def test_an_interrupt_begins_no_more_units(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupting(monkeypatch)
        made = Pass(project)
        with pytest.raises(KeyboardInterrupt):
            made.run(Here())
        assert made.rows() == [4]

    def test_an_interrupt_that_also_ends_workers_counts(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, cluster = Pass(project), Here(0)
        real = cluster.each

        def each(*args: Any, **options: Any) -> Iterator[Any]:
            if not cluster.dealt:
                signal.raise_signal(signal.SIGINT)  # a terminal sends it to workers that it started, too
            yield from real(*args, **options)

        monkeypatch.setattr(cluster, "each", each)
        with pytest.raises(KeyboardInterrupt):
            made.run(cluster)

    def test_an_interrupt_counts_even_if_workers_are_lost_for_the_third_time(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, cluster = Pass(project), Here(0, 0, 0)
        real = cluster.each

        def each(*args: Any, **options: Any) -> Iterator[Any]:
            if len(cluster.dealt) == ROUNDS - 1:
                signal.raise_signal(signal.SIGINT)
            yield from real(*args, **options)

        monkeypatch.setattr(cluster, "each", each)
        with pytest.raises(KeyboardInterrupt):
            made.run(cluster)
        assert len(cluster.dealt) == ROUNDS


def interrupting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an interrupt come with the first unit."""
    real = workers.embed

    def embed(job: Job, items: Sequence[Item]) -> Mapping[str, str]:
        done = real(job, items)
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(workers, "embed", embed)
