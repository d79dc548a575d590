"""Where work runs: in this process, or on the workers of a cluster, through joblib's backends.

To add an engine: a class like Dask and Ray, one line in ENGINES, and its name in `sections.Engine`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial

from tqdm import tqdm

from pipeline.cluster.agreement import Identify
from pipeline.cluster.on_dask import Dask
from pipeline.cluster.on_ray import Ray
from pipeline.cluster.protocol import Cluster, LocalProcess, Result, Task
from pipeline.cluster.remote import RemoteCluster
from pipeline.core.sections import Engine

__all__ = ["ENGINES", "Cluster", "LocalProcess", "RemoteCluster", "joined", "when_needed"]

ENGINES: Mapping[str, Callable[[str], RemoteCluster]] = {"dask": Dask, "ray": Ray}


@contextmanager
def joined(engine: Engine, identity: Identify) -> Iterator[RemoteCluster]:
    """Join the engine's workers, check that all agree with this process, and leave them at the end.

    Args:
        engine: the setting, not `local`.
        identity: returns what must be the same everywhere; it is called on every worker.

    Raises:
        InputError: if the engine is not installed.
        StateError: if nothing answers at its address, it has no workers, or one of them differs, with its name.

    """
    with ExitStack() as stack:
        said = f"joining {engine.backend} at {engine.address}: its workers load what they need, and are asked"
        with tqdm(bar_format="{desc}", desc=said, disable=None, leave=False):
            cluster = stack.enter_context(ENGINES[engine.backend](str(engine.address)))
            cluster.agree(identity)
        yield cluster


@contextmanager
def when_needed(engine: Engine, identity: Identify) -> Iterator[Cluster]:
    """Yield the cluster of the setting; an engine is joined when the first tasks come, not before.

    Args:
        engine: the setting.
        identity: as of `joined`, whose errors this has, too.

    """
    with ExitStack() as stack:
        yield (
            LocalProcess()
            if engine.backend == "local"
            else _WhenNeeded(partial(stack.enter_context, joined(engine, identity)))
        )


class _WhenNeeded:
    """A cluster that is joined when the first tasks come."""

    def __init__(self, join: Callable[[], Cluster]) -> None:
        self._join = join

    @cached_property
    def _cluster(self) -> Cluster:
        return self._join()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Join, and yield as the cluster does."""
        return self._cluster.map(function, tasks)
