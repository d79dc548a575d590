"""complete: the last stage; fails where a run did, for `train` and `finetune` let the others be judged first."""

from pipeline.core.errors import CheckFailed
from pipeline.core.params import Params
from pipeline.evaluation import curves, runs

HELP = "stage: the last one; name the runs that failed and exit with 1"


def main(params: Params) -> str:
    """Return the summary line; CheckFailed names every run that failed, and why."""
    failed = {"/".join(run): reason for run, reason in runs.failures(params.runs()).items()}
    for backbone in params.run.backbones:
        failed |= {f"{backbone}/{name} in the label curve": why for name, why in curves.read(backbone).failed.items()}
    if failed:
        raise CheckFailed(*(f"{what} failed: {reason}" for what, reason in failed.items()))
    number = len(list(params.runs()))
    return "the only run was made and judged" if number == 1 else f"all {number} runs were made and judged"
