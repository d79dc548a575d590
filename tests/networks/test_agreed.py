"""How a worker answers whether it may work: by what decides rows, and by the cache that it shares with the driver."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cluster import agreement
from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError
from pipeline.networks import workers
from tests.conftest import Project, tiny_network
from tests.networks.jobs import items_of, job_of


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Forget what earlier tests loaded, as a new process would have nothing."""
    workers._network.cache_clear()


class TestIdentity:
    def test_it_is_the_recipe_and_the_software(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        with workers.agreed(job, items[0]) as identify:
            found = pickle.loads(pickle.dumps(identify))()
        assert found.keys() > {*job.recipe, "headswap's code", "python", "torch", "numpy"}
        assert found["weights_sha256"] == f'"{job.recipe["weights_sha256"]}"'

    def test_the_check_leaves_no_file(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        with workers.agreed(job, items[0]) as identify:
            assert len(list(job.cache.iterdir())) == 1
            identify()
            assert len(list(job.cache.iterdir())) == 1
        assert not list(job.cache.iterdir())

    @pytest.mark.parametrize("what", ["weights_sha256", "dtype", "image_size", "pooling", "scaled_jpeg"])
    def test_whatever_decides_rows_changes_the_identity(self, project: Project, what: str) -> None:
        entry = project.content["backbones"]["tiny"]
        torch.manual_seed(1)
        torch.save(tiny_network().state_dict(), "other.pth")
        changed: dict[str, dict[str, Any]] = {
            "weights_sha256": {"weights": "other.pth", "sha256": stamps.sha256_file(Path("other.pth"))},
            "image_size": {"image_size": 40},
            "pooling": {"pooling": "max"},
        }
        settings = {"dtype": {"dtype": "float32"}, "scaled_jpeg": {"scaled_jpeg": True}}.get(what, {})
        jobs = [
            job_of(project),
            job_of(project, backbones={"tiny": {**entry, **changed.get(what, {})}}, embed=settings),
        ]
        found = []
        for job in jobs:
            with workers.agreed(job, items_of(project)[0]) as identify:
                found.append(identify())
        assert {name for name in found[0] if found[0][name] != found[1][name]} - {"columns"} == {what}

    def test_another_version_of_a_library_changes_the_identity(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = job_of(project)
        with workers.agreed(job, items_of(project)[0]) as identify:
            here = identify()
            monkeypatch.setattr(agreement.environment, "versions", lambda: {"torch": "0"})
            assert next(agreement.problems(here, identify())).startswith("torch: got '0', expected")

    def test_a_worker_that_cannot_read_an_image_says_so(self, project: Project) -> None:
        job, items = job_of(project), items_of(project)
        items[0].path.unlink()
        with workers.agreed(job, items[0]) as identify, pytest.raises(StateError, match=str(items[0].path)):
            identify()

    def test_a_bad_image_changes_nothing(self, project: Project) -> None:
        project.images[0].write_bytes(b"no image")
        with workers.agreed(job_of(project), items_of(project)[0]) as identify:
            identify()

    def test_missing_weights_are_named_by_the_worker(self, project: Project) -> None:
        job = job_of(project)
        Path("tiny.pth").unlink()
        with workers.agreed(job, items_of(project)[0]) as identify, pytest.raises(InputError, match="tiny.pth"):
            identify()


class TestSharedCache:
    @pytest.mark.parametrize("fault", ["missing", "other"])
    def test_one_that_is_not_the_drivers_is_refused(self, project: Project, fault: str) -> None:
        job, items = job_of(project), items_of(project)
        with workers.agreed(job, items[0]) as identify:
            (token,) = job.cache.iterdir()
            if fault == "missing":
                token.unlink()
            else:
                token.write_text("other")
            with pytest.raises(StateError) as caught:
                identify()
        (line,) = caught.value.problems
        why = {"missing": "No such file or directory", "other": "another file is there"}[fault]
        assert line.startswith(f"params.yaml: embed.cache: {job.cache}: {why}: not shared; expected a folder that")

    def test_one_that_may_not_be_written_to_is_refused(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        job, items = job_of(project), items_of(project)

        def refuse(*_: object, **__: object) -> int:
            raise OSError(30, "Read-only file system")

        with workers.agreed(job, items[0]) as identify:
            monkeypatch.setattr(Path, "write_text", refuse)
            with pytest.raises(StateError, match=f"embed.cache: {job.cache}: Read-only file system: not shared"):
                identify()
        assert not list(job.cache.iterdir())
