"""Every file that a stage leaves, once: where it lies, who makes it, what vouches for it, what of an image it holds.

Who writes such a file takes its path from here; audit, trace, diff, forget and doctor go through `ALL`. dvc.yaml, which
DVC needs, says the same in its own words: tests/core/test_artifacts.py holds the two together, and .gitignore too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core.params import Params

_NAMES = ("backbone", "run")


@dataclass(frozen=True)
class Artifact:
    """A file, or a model's folder, that a stage leaves: one for each backbone or run, if the path has their names."""

    path: str
    """From the project's folder; `{backbone}` and `{run}`, a head or plan, stand for names."""
    stages: tuple[str, ...]
    """That make it, as dvc.yaml calls them."""
    role: str
    """What it is in the lineage."""
    stamp: str = ""
    """The file that vouches for its bytes, which its stage leaves, too; its own path if it is its own stamp."""
    in_git: bool = False
    """Whether git keeps it; DVC's cache keeps all else, and every stamp."""
    carries: str = ""
    """What of an image it holds; empty for sums over many images."""

    def at(self, *names: str) -> Path:
        """Return where it lies: of a backbone, or of a backbone and a run, where the path has names."""
        return _filled(self.path, names)

    def stamp_at(self, *names: str) -> Path:
        """Return where its stamp lies."""
        return _filled(self.stamp, names)

    def is_at(self, path: str) -> bool:
        """Return whether a path is where one of them lies."""
        names = named(path)
        return len(names) == self.path.count("{") and path == self.at(*names).as_posix()

    def here(self) -> dict[Path, tuple[str, ...]]:
        """Return those that lie here, sorted, each with its names, which params.yaml need not list."""
        return _present(self.path)

    def stamps_here(self) -> dict[Path, tuple[str, ...]]:
        """Return the stamps that lie here, sorted, each with its names, which params.yaml need not list."""
        return _present(self.stamp)

    def names_in(self, params: Params) -> Iterable[tuple[str, ...]]:
        """Return the names that params.yaml lists for the path."""
        if "{run}" in self.path:
            return params.runs()
        return [(backbone,) for backbone in params.run.backbones] if "{backbone}" in self.path else [()]


def _filled(pattern: str, names: tuple[str, ...]) -> Path:
    return Path(pattern.format(**dict(zip(_NAMES, names, strict=False))))


def _present(pattern: str) -> dict[Path, tuple[str, ...]]:
    names = re.compile(re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(pattern)))
    found = {path: names.fullmatch(path.as_posix()) for path in sorted(Path().glob(re.sub(r"\{\w+\}", "*", pattern)))}
    return {path: match.groups() for path, match in found.items() if match}


_of_runs = partial(Artifact, stages=("train", "finetune"), role="run", stamp="models/{backbone}/{run}/run.json")
_of_verdict = partial(Artifact, stages=("compare",), stamp="reports/compare.json")
_picture = partial(
    Artifact, stages=("thumbnails",), role="thumbnails", stamp="data/thumbnails.json", carries="a small picture of it"
)
_found = partial(
    Artifact, stages=("quality",), role="quality", stamp="reports/quality-stamp.json", carries="made of it among others"
)

MANIFEST = Artifact("data/manifest.parquet", ("prepare",), "manifest", "data/manifest.json", carries="its row")
THUMBNAILS, SPRITE = _picture("data/thumbnails.parquet"), _picture("data/thumbnails.webp")
EMBEDDINGS = Artifact(
    "data/embeddings/{backbone}.h5", ("embed",), "embeddings", "data/embeddings/{backbone}.json", carries="its rows"
)
_SKIPPED = "data/embeddings/{backbone}.skipped.json"
SKIPPED = Artifact(_SKIPPED, ("embed",), "skipped images", _SKIPPED, carries="why it was skipped")
COST = Artifact("data/embeddings/{backbone}.cost.json", ("embed",), "cost")
MODEL = _of_runs("models/{backbone}/{run}", carries="a model trained on it")
PREDICTIONS = _of_runs("predictions/{backbone}/{run}.parquet", carries="a prediction of it")
METRICS = _of_runs("metrics/{backbone}/{run}.json", in_git=True)
_PLOT = "plots/{{backbone}}/{{run}}/{}.csv"
RUN_PLOTS = {name: _of_runs(_PLOT.format(name)) for name in ("confusion", "calibration")}
PLAN_PLOTS = {name: _of_runs(_PLOT.format(name), stages=("finetune",)) for name in ("loss", "validation")}
CURVE = Artifact(
    "curves/{backbone}.parquet", ("curve",), "curve", "curves/{backbone}.json",
    carries="models trained on it, or decisions on it",
)  # fmt: skip
SURVEY = Artifact(
    "survey/{backbone}.parquet", ("survey",), "survey", "survey/{backbone}.json", carries="its place on the map"
)
FINDINGS, FINDINGS_LIST = _found("reports/quality.json"), _found("reports/quality.csv")
VERDICT = _of_verdict("reports/verdict.json", role="verdict", carries="made of it among others")
SCORES = _of_verdict("reports/scores.json", role="scores", in_git=True)
PAGE = _of_verdict("reports/index.html", role="report", carries="made of it among others")
REPORT_PLOTS = {
    name: _of_verdict(f"reports/plots/{name}.csv", role="plot")
    for name in ("scores", "differences", "cost", "label_efficiency")
}
LINEAGE = Artifact("reports/lineage.json", ("lineage",), "lineage")

ALL = (
    MANIFEST, THUMBNAILS, SPRITE, EMBEDDINGS, SKIPPED, COST, MODEL, PREDICTIONS, METRICS, *RUN_PLOTS.values(),
    *PLAN_PLOTS.values(), CURVE, SURVEY, FINDINGS, FINDINGS_LIST, VERDICT, SCORES, PAGE, *REPORT_PLOTS.values(),
    LINEAGE,
)  # fmt: skip
"""In the order of the chain: what an artifact is made from stands before it."""
FOLDERS = tuple(dict.fromkeys(Path(one.path).parts[0] for one in ALL))
"""Folders of the project that hold them."""
IN_GIT = tuple(dict.fromkeys(Path(one.path).parts[0] for one in ALL if one.in_git))
"""Those with a file that git keeps."""


def named(path: str) -> tuple[str, ...]:
    """Return the backbone, or backbone and run, whose files lie where a path leads; none for other files."""
    found = (re.fullmatch(place, path) for place in _places())
    return next((match.groups() for match in found if match), ())


def _places() -> Iterator[str]:
    """Yield a pattern for each folder of files with names: a name ends with a dot, a slash or the path."""
    for above in dict.fromkeys(one.path[: one.path.rfind("}") + 1] for one in ALL if "{" in one.path):
        yield re.sub(r"\{\w+\}", r"([^/.]+)", above) + r"(?:[./].*)?"
