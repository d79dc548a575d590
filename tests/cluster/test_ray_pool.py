"""How many actors Ray is asked for."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from pipeline.cluster import on_ray
from pipeline.cluster.on_ray import Ray
from pipeline.core.errors import StateError


@pytest.mark.parametrize(
    ("slots", "free", "gpu", "asked"),
    [
        (3, 3.0, False, (3, {"num_cpus": 1})),
        (3, 2.5, False, (2, {"num_cpus": 1})),  # what is in use would be waited for
        (1, 1.0, True, (2, {"num_cpus": 1, "num_gpus": 0.5})),
        (4, 3.0, True, (3, {"num_cpus": 1, "num_gpus": 1})),
    ],
)
def test_rays_pool_has_as_many_actors_as_free_slots(
    monkeypatch: pytest.MonkeyPatch, slots: int, free: float, gpu: bool, asked: tuple[int, dict[str, float]]
) -> None:
    backend = ray(monkeypatch, {"GPU" if gpu else "CPU": free}).backend(None, slots, gpu=gpu)  # type: ignore[arg-type]
    assert (backend["n_jobs"], backend["ray_remote_args"]) == asked


@pytest.mark.parametrize(
    ("slots", "gpu", "said"),
    [
        (1, False, "free CPUs: got 1 of 1, expected at least 2: start a node with --num-cpus 2, or compute here"),
        (8, False, "free CPUs: got 1 of 8, expected at least 2: wait for other work to end"),
        (8, True, "free GPUs: got 0 of 8, expected at least 1: wait for other work to end"),
    ],
)
def test_a_pool_of_one_actor_is_refused_as_joblib_would_not_use_it(
    monkeypatch: pytest.MonkeyPatch, slots: int, gpu: bool, said: str
) -> None:
    with pytest.raises(StateError, match=f"ray at head:1: {said}"):
        ray(monkeypatch, {"CPU": 1.0}).backend(None, slots, gpu=gpu)  # type: ignore[arg-type]


def ray(monkeypatch: pytest.MonkeyPatch, free: Mapping[str, float]) -> Ray:
    module = SimpleNamespace(available_resources=lambda: free)
    monkeypatch.setattr(on_ray, "RELEASED_WITHIN", 0.0)
    monkeypatch.setattr(Ray, "__init__", lambda self: vars(self).update(where="ray at head:1", module=module))
    return Ray()  # type: ignore[call-arg]
