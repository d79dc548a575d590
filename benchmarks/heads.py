"""Swapping a head: against doing nothing, fitting, and importing what the head needs."""

import sys
from collections.abc import Iterator

from benchmarks.figures import Figure, MainJob, at_most, main_job, median_seconds, seconds

STAGE = "train@efficientnet_lite0-{}"
# head -> the scikit-learn module it comes from, and a value of a parameter that was not used before
EDITS = {
    "logreg": ("sklearn.linear_model", "C", [0.003, 0.03]),
    "rbf_svm": ("sklearn.svm, sklearn.calibration", "C", [2, 20]),
    "knn": ("sklearn.neighbors", "n_neighbors", [7, 15]),
    "random_forest": ("sklearn.ensemble", "min_samples_leaf", [2]),
}
# What any head needs besides: the file formats, the parameters, and a saved form that executes nothing.
BARE_IMPORT = (
    "import h5py, joblib, pyarrow.parquet, pydantic, ruamel.yaml, sklearn.model_selection, sklearn.pipeline, tqdm, {}; "
    "from pipeline.core.imports import import_without; "
    "import_without('skops.io', 'sklearn.externals.array_api_compat.torch')"
)


def measure() -> Iterator[Figure]:
    """Edit one head after the other."""
    job = main_job()
    nothing = median_seconds(job.clone.repro)
    yield Figure("dvc repro with nothing changed (median of 5)", nothing, "s")
    for head in EDITS:
        yield from _swap(job, head, nothing)


def _swap(job: MainJob, head: str, nothing: float) -> Iterator[Figure]:
    module, key, value = EDITS[head]
    clone, stage = job.clone, STAGE.format(head)
    before, old = clone.cached_shards(), (clone.root / "params.yaml").read_text()
    bare = median_seconds(lambda: clone.run(sys.executable, "-c", BARE_IMPORT.format(module)), times=3)
    clone.set(**{f"heads.{head}.{key}": value})
    swap = seconds(lambda: clone.repro("-s", stage))
    fit = job.json(f"models/efficientnet_lite0/{head}/run.json")["facts"]["cost"]["seconds"]
    allowed = nothing + fit + 1.5 * bare + 0.5
    detail = f"{swap:.1f} s against {nothing:.1f} + {fit:.1f} fit + 1.5 x {bare:.1f} import + 0.5"
    yield at_most(f"swap {head}, of what is allowed ({detail})", swap / allowed, "x", 1)
    rest = seconds(clone.repro)
    yield at_most(f"whole dvc repro after editing {head}, without the fit", swap - fit + rest, "s", 12)
    yield at_most(
        "images through the CNN meanwhile (new cache shards)", len(clone.cached_shards()) - len(before), "", 0
    )
    (clone.root / "params.yaml").write_text(old)
    ran, _ = clone.repro()
    yield at_most(f"stages run when {head} is set back", len(ran), "", 0)
