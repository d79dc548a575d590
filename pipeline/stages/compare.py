"""compare: all runs -> reports/verdict.json and reports/index.html; the only stage that scores the test split."""

from pipeline import report, runs, stamps, verdict
from pipeline.embeddings import matrix
from pipeline.evaluation import curves
from pipeline.params import Params


def main(params: Params) -> str:
    """Judge the runs that params lists, and no others that may lie about; return the summary line."""
    backbones = params.run.backbones
    judged = verdict.judge(
        [runs.read(backbone, name) for backbone, name in params.runs()],
        {backbone: matrix.read_cost(backbone) for backbone in backbones},
        {backbone: stamps.read(matrix.stamp_path(backbone)).facts["skipped"] for backbone in backbones},
        {backbone: curves.read(backbone) for backbone in backbones},
        params,
    )
    verdict.write(judged)
    report.write(judged)
    return f"{judged.sentence} See {verdict.PAGE}"
