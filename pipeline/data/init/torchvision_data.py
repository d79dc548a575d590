"""Any classification data set of torchvision, laid out as folders of PNGs: `<split>/<class>/<number>.png`.

torchvision downloads the files, checks their checksums and reads them; some of its readers unpickle what they have
checked. The result is a folder of images like any other.
"""

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import datasets
from tqdm import tqdm

from pipeline.core.errors import InputError, one_line, unknown

DOWNLOADS = Path(".headswap/torchvision")
SPLITS: Mapping[str, Sequence[str]] = {
    "train": ("train", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Our split -> the names that data sets give it, the best first."""

Part = tuple[str, Callable[[], Any]]
"""A split's name, empty if there are no splits, and what builds its data set."""


def lay_out(name: str, folder: Path) -> int:
    """Download a data set if it is missing, and write all its images to a new folder or none; return how many.

    Raises:
        InputError: if there is no such data set, it is not for classification, it cannot be downloaded, or the folder
            exists.

    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; use it with --data {folder}, or move it away")
    require_known(name)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        images = sum(_write(name, _opened(name, part), temporary / split) for split, part in _parts(name))
        if not images:
            raise InputError(f"torchvision:{name}: has none of the splits {', '.join(SPLITS)}")
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return images


def require_known(name: str) -> None:
    """Raise InputError, with the nearest name, unless torchvision has such a data set."""
    known = [one for one in datasets.__all__ if _is_data_set(getattr(datasets, one))]
    if name not in known:
        raise InputError(unknown("--data: torchvision", name, known))


def _is_data_set(what: object) -> bool:
    return inspect.isclass(what) and issubclass(what, datasets.VisionDataset) and what is not datasets.VisionDataset


def _parts(name: str) -> Iterator[Part]:
    """Yield a data set's splits, as its constructor's arguments name them."""
    build = getattr(datasets, name)
    taken = inspect.signature(build).parameters
    common: dict[str, Any] = {"root": str(DOWNLOADS / name)} if "root" in taken else {}
    common |= {"download": True} if "download" in taken else {}
    if "train" in taken:
        yield from (("train", partial(build, train=True, **common)), ("test", partial(build, train=False, **common)))
    elif "split" in taken:
        yield from _named_splits(build, common)
    else:
        yield "", partial(build, **common)


def _named_splits(build: Callable[..., Any], common: Mapping[str, Any]) -> Iterator[Part]:
    """Yield each split under the first name that the data set accepts; it checks the name before it downloads."""
    for ours, theirs in SPLITS.items():
        for one in theirs:
            try:
                build(split=one, **{**common, "download": False})
            except ValueError:  # no such split
                continue
            except (RuntimeError, OSError):  # not downloaded yet
                pass
            yield ours, partial(build, split=one, **common)
            break


def _opened(name: str, part: Callable[[], Any]) -> Any:  # noqa: ANN401  # torchvision's data sets share no useful type
    try:
        return part()
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        why = one_line(error)
        raise InputError(
            f"torchvision:{name}: cannot be downloaded or read ({why}); where there is no network, copy "
            f"{DOWNLOADS / name} from another machine"
        ) from error
    except (TypeError, ImportError) as error:
        raise InputError(f"torchvision:{name}: needs more than its name ({error})") from error


def _write(name: str, images: Any, folder: Path) -> int:  # noqa: ANN401
    classes = getattr(images, "classes", [])
    for number in tqdm(range(len(images)), desc=folder.name, unit="image", disable=None):
        image, target = images[number]
        if not isinstance(image, Image.Image) or isinstance(target, tuple | dict | str):
            raise InputError(
                f"torchvision:{name}: not a classification data set: gives {type(target).__name__} as label"
            )
        label = str(classes[int(target)] if int(target) < len(classes) else int(target))
        path = folder / _folder_of(label, int(target)) / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return len(images)


def _folder_of(label: str, number: int) -> str:
    """Return a class's folder: its name, preceded by its number if the bare name cannot be a folder's."""
    usable = "/" not in label and not label.startswith(".") and label.isprintable()
    return label if usable else f"{number} {label.replace('/', '-')}"
