"""The main job: how long it takes, what it reaches, and what a second run costs."""

from collections.abc import Iterator

from benchmarks.figures import Figure, at_least, at_most, main_job, median_seconds


def measure() -> Iterator[Figure]:
    """Run the main job from nothing and look at its verdict."""
    job = main_job()
    yield at_most("main job from nothing, after installation", job.seconds / 60, "min", 10)
    yield at_most("dvc repro with nothing changed (median of 5)", median_seconds(job.clone.repro), "s", 2.5)
    page = job.clone.root / "reports/index.html"
    yield at_most("reports/index.html", page.stat().st_size / 1e6, "MB", 6)
    verdict = job.json("reports/verdict.json")
    results = {f"{result['backbone']}/{result['name']}": result for result in verdict["results"]}
    for title, key in (("best frozen head by validation", "best_head"), ("best plan by validation", "best_plan")):
        result = results[verdict[key]]
        accuracy = result["test"]["accuracy"]
        interval = f"[{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
        name = f"test accuracy of the {title}, {result['name']} {interval}"
        yield at_least(name, 100 * accuracy["value"], "%", 84)
