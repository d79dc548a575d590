"""complete: the last stage; fails where a run did, for `train` and `finetune` let the others be judged first."""

from pipeline import runs
from pipeline.errors import CheckFailed
from pipeline.params import Params


def main(params: Params) -> str:
    """Return the summary line; CheckFailed names every run that failed, and why."""
    failed = runs.failed(params.runs())
    if failed:
        raise CheckFailed(*(f"{'/'.join(run)} failed: {reason}" for run, reason in failed.items()))
    return f"all {len(list(params.runs()))} runs were made and judged"
