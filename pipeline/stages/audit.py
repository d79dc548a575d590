"""audit: tie the stamps into reports/lineage.json (--record), or verify every byte against it."""

from pipeline.errors import CheckFailed
from pipeline.lineage import chain as lineage
from pipeline.params import Params


def main(params: Params, *, record: bool, quick: bool = False, json: bool = False, recompute: int = 0) -> str:
    """Record or verify; return the summary line, or raise CheckFailed with every finding."""
    if record:
        chain = lineage.record(params)
        return f"{len(chain.nodes)} files and {chain.images} images tied together in {lineage.LINEAGE}"
    chain = lineage.read()
    findings = lineage.verify(chain)
    if findings:
        raise CheckFailed(*map(str, findings), f"{len(findings)} of {len(chain.nodes) + chain.images} files differ")
    return f"{len(chain.nodes)} files and {chain.images} images are what {lineage.LINEAGE} says"
