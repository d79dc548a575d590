"""doctor: find what would stop a run, before anything expensive starts, and mend what a killed run left."""

import json
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from pipeline.core import environment, git, stamps
from pipeline.core.atomic import write_json
from pipeline.core.errors import InputError, PipelineError
from pipeline.core.params import Params
from pipeline.core.words import counted

PACKAGE = "headswap"
CODE = Path(__file__).parents[1]
"""The folder of the pipeline's code."""
IN_ORDER = Path(".headswap/in_order.json")
"""Which heads, networks and weights the last check found in order."""
HELP = "check params.yaml, data, weights and versions before anything expensive runs, and what a killed run left"


def arguments(parser: ArgumentParser) -> None:
    """Add the option to mend."""
    fix = "mend what a killed run left; no cached row is lost"
    parser.add_argument("--fix", action="store_true", help=fix)


def main(params: Params, *, fix: bool = False) -> str:
    """Mend if asked to, check everything and report it all at once; return the summary.

    Raises:
        InputError: with a line for everything that was mended, and for every problem.
        StateError: if DVC is running, with `fix`.

    """
    wrong, missing = _versions()
    if missing:  # the other checks import these packages
        raise InputError(*wrong, *missing)
    from pipeline.repair import leftovers  # noqa: PLC0415  # their own imports have just been checked

    mended = _mended(params) if fix else []
    remedy = "; to mend it: headswap doctor --fix"
    found = [f"{leftover.problem}{remedy if leftover.mend else ''}" for leftover in leftovers.find(params)]
    agreeing, differing = _engine(params)
    problems = [*wrong, *_tools(), *found, *_settings(params), *_data(params), *differing]
    if problems:
        raise InputError(*mended, *problems)
    running = [f"at work: {one}" for one in leftovers.at_work()]
    runs = list(params.runs())
    summary = f"params.yaml, {params.data.path} and weights are in order; {counted(len(runs), 'run')} to compare"
    return "\n".join([*mended, *running, *agreeing, summary])


def _mended(params: Params) -> list[str]:
    from pipeline.repair import leftovers  # noqa: PLC0415

    with leftovers.undisturbed():
        return [f"mended: {leftover.mend()}" for leftover in leftovers.find(params) if leftover.mend]


def _versions() -> tuple[list[str], list[str]]:
    """Return a line for each required package of the wrong version, and for each that is not installed."""
    wrong, missing = [], []
    try:
        stated = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return [], [f"{PACKAGE}: not installed, and dvc.yaml calls it by name: pip install --editable ."]
    for requirement in map(Requirement, stated):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{requirement.name}: not installed: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            expected = f"got version {version}, expected {requirement.specifier}"
            wrong.append(f"{requirement.name}: {expected}: pip install '{requirement}'")
    return wrong, missing


def _tools() -> Iterator[str]:
    """Check that git, DVC and headswap are on PATH, and that this is a repository of git and of DVC."""
    if shutil.which("git") is None:
        yield "git: not on PATH; install it: DVC keeps its files beside git's"
    elif git.text("rev-parse", "--git-dir") is None:
        yield "no git repository here: git init"
    for command in ("dvc", PACKAGE):
        if shutil.which(command) is None:
            yield f"{command}: not on PATH, where `dvc repro` looks for it: export PATH={Path(sys.prefix, 'bin')}:$PATH"
    if not Path(".dvc").is_dir():
        yield "no DVC repository here, so `dvc repro` cannot run: dvc init"
        return
    from pipeline.core import locks  # noqa: PLC0415  # its own imports have been checked

    try:
        locks.objects_of(Path.cwd())
    except PipelineError as error:
        yield from error.problems


def _settings(params: Params) -> Iterator[str]:
    """Check heads and networks, unless the same ones were in order before: loading PyTorch for it takes seconds."""
    asked = _asked(params)
    if _in_order_before(asked):
        return
    weights: dict[str, str] = {}
    problems = [*_heads(params), *_networks(params, weights)]
    if not problems:
        write_json(IN_ORDER, {"asked": asked, "weights": weights})
    yield from problems


def _asked(params: Params) -> str:
    """Return the sha256 of all that the check of heads and networks depends on, but for the files of weights."""
    entries = {name: params.backbone(name).model_dump(mode="json") for name in params.run.backbones}
    plans = {name: params.plan(name).model_dump() for name in [*params.run.plans, *params.curve.plans]}
    heads = [dict(params.heads), dict(params.curve.heads)]
    code = [stamps.sha256_file(path) for path in sorted(CODE.rglob("*.py"))]
    return stamps.sha256_json([entries, plans, heads, code, environment.versions()])


def _in_order_before(asked: str) -> bool:
    try:
        before = json.loads(IN_ORDER.read_bytes())
        return before["asked"] == asked and all(
            stamps.sha256_file(stamps.locate(locator)) == sha256 for locator, sha256 in before["weights"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PipelineError):
        return False


def _heads(params: Params) -> Iterator[str]:
    from pipeline import heads  # noqa: PLC0415
    from pipeline.heads import curve  # noqa: PLC0415

    for name, entry in params.heads.items():
        yield from heads.check(name, entry)
    yield from curve.check(params.curve.heads)


def _networks(params: Params, weights: dict[str, str]) -> Iterator[str]:
    """Load every backbone and find the blocks where plans begin; add the files of weights: locator -> sha256."""
    from pipeline.networks import backbones  # noqa: PLC0415

    for name in params.run.backbones:
        try:
            loaded = backbones.load(name, params.backbone(name))
            weights[loaded.weights] = str(loaded.identity["weights_sha256"])
            for plan in dict.fromkeys([*params.run.plans, *params.curve.plans]):
                loaded.network.split_before(params.plan(plan).unfreeze_from)
        except PipelineError as error:
            yield from error.problems


def _data(params: Params) -> Iterator[str]:
    from pipeline.data import sources  # noqa: PLC0415

    try:
        sources.listed(sources.place_of(params.data))
    except PipelineError as error:
        yield from error.problems


def _engine(params: Params) -> tuple[Sequence[str], Sequence[str]]:
    """Compare the workers' software with this process's; return a line if all agree, and the problems."""
    engine = params.embed.engine
    if engine.backend == "local":
        return (), ()
    from pipeline.cluster import agreement, joined  # noqa: PLC0415
    from pipeline.networks import workers  # noqa: PLC0415

    try:
        with joined(engine, partial(agreement.software, workers.LIBRARIES)) as cluster:
            found = f"workers that agree: {len(cluster.workers())}, tasks at once: {cluster.slots()}"
            return (f"{engine.backend} at {engine.address}: {found}",), ()
    except PipelineError as error:
        return (), error.problems
