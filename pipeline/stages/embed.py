"""embed: manifest -> data/embeddings/<backbone>.*, running the CNN over images the cache does not know."""

from argparse import ArgumentParser

from pipeline.core import options, processes
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.networks import backbones, embedding

HELP = "stage: push images the cache does not know through a frozen CNN"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone; offer to compute nothing."""
    options.entries(parser, "backbone")
    dry_run = "say how many images that would be and how long it would take; compute nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, *, dry_run: bool = False) -> str:
    """Look up, compute what is missing, append, materialise; return the summary line.

    Raises:
        InputError: if an image cannot be used and `embed.on_bad_image` is fail.
        StateError: if another `embed` is at work in this repository, the manifest is of another data folder, or the
            engine's workers cannot do it.

    """
    table = manifest.read()
    table.require_folder(params.data.folder)
    loaded = backbones.load(backbone, params.backbone(backbone))
    if dry_run:
        return embedding.forecast(params, loaded, table)
    with processes.alone(processes.EMBED_LOCK, "another `headswap embed`"):
        embedded = embedding.embed(params, backbone, loaded, table)
        embedding.materialise(backbone, embedded, loaded)
    return str(embedded)
