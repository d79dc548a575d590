"""prepare: images and labels -> data/manifest.parquet."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from pipeline import manifest, sources, splits, stamps
from pipeline.manifest import Manifest
from pipeline.params import Params


def main(params: Params) -> str:
    """Hash every image, deal the splits, write the manifest; return the summary line."""
    folder = params.data.path
    records = sources.records_of(params.data.source, folder)
    paths = [folder / record.path for record in records]
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock
        hashing = pool.map(stamps.sha256_file, paths)
        contents = list(tqdm(hashing, total=len(paths), desc="hash", unit="image", disable=None))
    table = Manifest(
        image_id=[str(record.path) for record in records],
        path=[path.as_posix() for path in paths],
        sha256=contents,
        label=[record.label for record in records],
        group=[record.group for record in records],
        split=splits.assign(records, contents, params.split, params.seed),
    )
    manifest.write(table, facts={"source": params.data.source, "seed": params.seed, "split": params.split.model_dump()})
    counts = Counter(table.split)
    dealt = ", ".join(f"{counts[split]} {split}" for split in manifest.SPLITS)
    return f"{len(table)} images, {len(set(contents))} distinct, {len(table.classes)} classes: {dealt}"
