"""backbones: what can be put under `backbones:` in params.yaml, and what is there already."""

from collections.abc import Mapping

from tqdm import tqdm

from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.sections import BackboneEntry
from pipeline.core.tables import aligned

HEADER = ("name", "width", "parameters", "input", "weights", "here")
HELP = "list every frozen CNN: width, input size, weights, and if they are here"


def main(params: Params) -> str:
    """Describe every backbone of the code's catalogue and of params.yaml; return the table."""
    from pipeline.networks import backbones  # noqa: PLC0415  # after params were read: loading torch takes seconds

    entries = {**{name: BackboneEntry() for name in backbones.BACKBONES}, **params.backbones}
    rows = [HEADER, *(_row(name, entry) for name, entry in _progress(entries))]
    own = f"{len(entries)} backbones, {len(params.backbones)} of them set in params.yaml"
    use = "to use one: a line `  NAME: {}` under `backbones:` in params.yaml, and NAME in run.backbones"
    return "\n".join([own, aligned(rows), "besides: kind: timm:<model>, any CNN of timm's", use])


def _progress(entries: Mapping[str, BackboneEntry]) -> "tqdm[tuple[str, BackboneEntry]]":
    return tqdm(entries.items(), desc="look", unit="backbone", leave=False, disable=None)


def _row(name: str, entry: BackboneEntry) -> tuple[str, ...]:
    from pipeline.networks import backbones  # noqa: PLC0415

    try:
        found = backbones.describe(name, entry)
    except PipelineError as error:
        return (name, "", "", "", error.problems[0], "no")
    millions = f"{found.parameters / 1e6:.1f} M"
    return (name, str(found.width), millions, str(found.size), found.weights, "yes" if found.here else "no")
