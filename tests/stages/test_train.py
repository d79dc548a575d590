from pathlib import Path

import joblib
import pytest

from pipeline.core.errors import InputError
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.shards import keys_of, sha256_of
from pipeline.evaluation import runs
from pipeline.stages import embed, prepare, train
from tests.conftest import Project


def test_a_head_says_what_it_costs_to_keep_and_to_use(project: Project) -> None:
    params = project.write()
    prepare.main(params)
    embed.main(params, "tiny")
    train.main(params, "tiny", "logreg")
    run = runs.read("tiny", "logreg")
    facts = run.stamp.facts
    assert facts["device"] == "cpu"
    assert facts["bytes_on_disk"] == (runs.folder("tiny", "logreg") / "model.skops").stat().st_size
    prediction = facts["prediction"]
    assert (prediction["runtime"], prediction["images"]) == ("scikit-learn", manifest.read().split.count("test"))
    assert 0 < prediction["seconds_per_1000"] < 1000
    assert run.cost.peak_memory > 1_000_000


def test_a_search_on_other_processes_ends_in_the_same_artifacts_and_counts_their_time(project: Project) -> None:
    params = project.write(heads={"logreg": {"C": [0.1, 1.0], "search": "halving"}}, selection={"repeats": 2})
    prepare.main(params)
    embed.main(params, "tiny")
    train.main(params, "tiny", "logreg")
    names = ("predictions/tiny/logreg.parquet", "metrics/tiny/logreg.json")
    here = [Path(name).read_bytes() for name in names]
    chosen = runs.read("tiny", "logreg").stamp.facts["candidates"]
    with joblib.parallel_config("loky", n_jobs=2):
        train.main(params, "tiny", "logreg")
    there = runs.read("tiny", "logreg")
    assert [Path(name).read_bytes() for name in names] == here
    assert there.stamp.facts["candidates"] == chosen
    assert there.cost.cpu_seconds > 0
    assert there.cost.joules is None


def test_a_class_without_any_embedding_is_one_line(project: Project) -> None:
    params = project.write()
    prepare.main(params)
    embed.main(params, "tiny")
    table = manifest.read()
    red = [sha256 for sha256, label in zip(table.sha256, table.label, strict=True) if label == "red"]
    matrix.forget("tiny", sha256_of(keys_of(red)), dry=False)
    with pytest.raises(InputError, match="class 'red': got 0 images, .* the others of its images have no embedding"):
        train.main(params, "tiny", "logreg")
