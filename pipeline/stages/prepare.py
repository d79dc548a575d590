"""prepare: images and labels -> data/manifest.parquet."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pipeline import exclusions, manifest, sources, splits, stamps
from pipeline.errors import InputError
from pipeline.manifest import Manifest, Record
from pipeline.params import Params


def main(params: Params) -> str:
    """Hash every image, leave out the excluded ones, deal the splits, write the manifest; return the summary line."""
    folder = params.data.path
    every = sources.records_of(params.data.source, folder)
    records, contents = _included(every, _hashed([folder / record.path for record in every]))
    excluded = len(every) - len(records)
    table = Manifest(
        image_id=[str(record.path) for record in records],
        path=[(folder / record.path).as_posix() for record in records],
        sha256=contents,
        label=[record.label for record in records],
        group=[record.group for record in records],
        split=splits.assign(records, contents, params.split, params.seed),
    )
    facts = {"source": params.data.source, "seed": params.seed, "split": params.split.model_dump()}
    manifest.write(table, facts={**facts, "excluded": excluded})
    counts = Counter(table.split)
    dealt = ", ".join(f"{counts[split]} {split}" for split in manifest.SPLITS)
    left_out = f"; {excluded} left out by {exclusions.EXCLUDED}" if excluded else ""
    return f"{len(table)} images, {len(set(contents))} distinct, {len(table.classes)} classes: {dealt}{left_out}"


def _hashed(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock
        hashing = pool.map(stamps.sha256_file, paths)
        return list(tqdm(hashing, total=len(paths), desc="hash", unit="image", disable=None))


def _included(records: Sequence[Record], contents: Sequence[str]) -> tuple[list[Record], list[str]]:
    """Leave out what data/excluded.csv lists; InputError if that is everything."""
    excluded = exclusions.read()
    kept = [row for row, sha256 in enumerate(contents) if sha256 not in excluded]
    if not kept:
        raise InputError(f"{exclusions.EXCLUDED}: leaves out all {len(records)} images, expected some to be left")
    return [records[row] for row in kept], [contents[row] for row in kept]
