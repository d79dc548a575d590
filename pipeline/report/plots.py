"""The data of the page's charts as tables for `dvc plots show`."""

from pathlib import Path

from pipeline.core.artifacts import REPORT_PLOTS
from pipeline.core.tables import write_csv
from pipeline.verdict.schema import Verdict


def write(verdict: Verdict) -> list[Path]:
    """Write scores, differences to the best head, cost and label efficiency; return the files."""
    metric, best = verdict.metric, verdict.best_head
    paired = [(result, verdict.pair(result.run, best)) for result in verdict.results if result.run != best]
    tables = {
        "scores": [
            ("run", "value", "low", "high"),
            *((one.run, *vars(one.test[metric]).values()) for one in verdict.results),
        ],
        "differences": [
            ("run", "difference", "low", "high", "holm_p"),
            *((one.run, *vars(pair.difference).values(), pair.holm_p) for one, pair in paired),
        ],
        "cost": [
            ("run", "cpu_seconds", "value"),
            *((one.run, one.cost.cpu_seconds, one.test[metric].value) for one in verdict.results),
        ],
        "label_efficiency": [
            ("run", "labels", "value", "low", "high"),
            *(
                (f"{backbone}/{run}", one.labels, *vars(one.score).values())
                for backbone, curve in verdict.curves.items()
                for run, some in curve.reached.items()
                for one in some
            ),
        ],
    }
    for name, table in tables.items():
        write_csv(REPORT_PLOTS[name].at(), table)
    return [REPORT_PLOTS[name].at() for name in tables]
