"""lineage: all stamps -> reports/lineage.json, the chain from images to verdict that the audit checks."""

from pipeline.core.params import Params
from pipeline.core.words import counted
from pipeline.lineage import chain

HELP = "stage: write reports/lineage.json, after checking that the stamps agree"


def main(params: Params) -> str:
    """Tie the stamps together; return the summary line, or raise StateError if one does not agree with its files."""
    tied = chain.record(params)
    return f"{counted(len(tied.nodes), 'file')} and {counted(tied.images, 'image')} tied together in {chain.LINEAGE}"
