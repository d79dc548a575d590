"""thumbnails: manifest -> small pictures of the images, for the report."""

from tqdm import tqdm

from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails

HELP = "stage: draw small pictures of the images, 3,000 at most, for the report"


def main(params: Params) -> str:
    """Draw the chosen images and write them; return the summary line."""
    table = manifest.read()
    table.require_folder(params.data.folder)
    with tqdm(total=len(thumbnails.chosen(table)), desc="draw", unit="image", disable=None) as bar:
        made = thumbnails.make(table, bar.update)
    written = thumbnails.write(made)
    return f"{len(made.image_id):,} of {len(table):,} images pictured, {written / 1e6:.1f} MB"
