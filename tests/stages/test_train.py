from pipeline import manifest, runs
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
