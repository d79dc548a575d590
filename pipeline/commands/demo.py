"""demo: lay the ELPV images out under data/raw/elpv, from the installed package."""

import importlib.util
import shutil
from pathlib import Path

from tqdm import tqdm

from pipeline.core.errors import InputError
from pipeline.core.params import Params

FOLDER = Path("data/raw/elpv")
HELP = "lay the demo's 2,624 images out under data/raw/elpv"


def main(params: Params) -> str:  # noqa: ARG001  # every command is called alike
    """Copy the data set's files, all or nothing; return the summary line."""
    source = package_data()
    files = [source / "labels.csv", *sorted((source / "images").glob("*.png"))]
    if FOLDER.exists():
        present = sum(_is_copy(FOLDER / path.relative_to(source), path) for path in files)
        if present == len(files):
            return f"{len(files) - 1} images are in {FOLDER} already"
        raise InputError(f"{FOLDER}: holds {present} of the demo's {len(files)} files; move it away, then run again")
    temporary = FOLDER.with_name(".elpv.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    for path in tqdm(files, desc="copy", unit="file", disable=None):
        shutil.copyfile(path, temporary / path.relative_to(source))
    temporary.replace(FOLDER)
    return f"{len(files) - 1} images laid out in {FOLDER} (ELPV data set, CC BY-NC-SA 4.0)"


def _is_copy(path: Path, original: Path) -> bool:
    return path.is_file() and path.stat().st_size == original.stat().st_size


def package_data() -> Path:
    """Return where the installed package keeps the data set; InputError if it is not installed."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise InputError("the demo's data set is not installed: pip install 'headswap[demo]'")
    return Path(spec.origin).parent / "data"
