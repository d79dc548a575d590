"""HDF5 files from anywhere: hashed before they are parsed, and read only where they are plain data.

A file may have the expected hash and still be hostile: whoever can write the file can often write the hash, too. HDF5
can follow links to other files, read external raw data, assemble virtual data sets, or claim terabytes. All of these
are refused before a value is read; our own files need none of them.
"""

import os
from collections.abc import Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.core.errors import StateError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]


def create(where: Path | BytesIO) -> h5py.File:
    """Open a new file for writing, on disk or in memory."""
    return h5py.File(where, "w")


def store(group: h5py.Group, name: str, values: Array) -> None:
    """Write a data set without times, so that equal content gives equal bytes."""
    group.create_dataset(name, data=values, track_times=False)


def reserve(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Allocate a data set without writing it; return the offset in the file at which its rows must be written."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = group.create_dataset(name, shape, dtype, track_times=False, dcpl=properties)
    return int(dataset.id.get_offset())


def parse(content: bytes, path: Path) -> h5py.File:
    """Open a file held in memory for reading; StateError if it is not HDF5."""
    try:
        return h5py.File(BytesIO(content), "r")
    except OSError as error:
        raise StateError(f"{path}: not an HDF5 file") from error


def extent(file: h5py.File, name: str, path: Path, size: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Return a data set's offset in the file, shape and dtype.

    Args:
        file: the opened file.
        name: of the data set, with its groups.
        path: what errors call the file.
        size: of the file, in bytes.

    Raises:
        StateError: unless it is plain numbers or fixed-length text, contiguous and inside this very file.

    """
    data: Any = file
    for part in name.split("/"):
        if not has(data, part):
            raise StateError(f"{path}: /{name}: missing or a link, expected a data set inside the file; not read")
        data = data[part]
    if not isinstance(data, h5py.Dataset):
        raise StateError(f"{path}: /{name}: not a data set; not read")
    properties = data.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count():
        raise StateError(f"{path}: /{name}: not stored in one piece inside the file; not read")
    if data.dtype.kind not in "fiuS" or data.dtype.hasobject:
        raise StateError(f"{path}: /{name}: dtype: got {data.dtype}, expected numbers or fixed-length text; not read")
    offset, length = data.id.get_offset(), data.size * data.dtype.itemsize
    if length and (offset is None or offset + length > size):
        raise StateError(f"{path}: /{name}: claims {length:,} bytes in a file of {size:,}; not read")
    return offset or 0, data.shape, data.dtype


def has(group: h5py.Group, name: str) -> bool:
    """Return whether a group itself holds something under a name; no link is followed."""
    if not isinstance(group, h5py.Group):
        return False
    links = group.id.links
    return bool(links.exists(name.encode()) and links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD)


def values(file: h5py.File, name: str, path: Path, content: bytes) -> Array:
    """Return a data set of a file held in memory, read-only and not copied; StateError as `extent`."""
    offset, shape, dtype = extent(file, name, path, len(content))
    return np.frombuffer(content, dtype, int(np.prod(shape)), offset).reshape(shape)


def mapped(stream: BufferedReader, names: Sequence[str], path: Path) -> list[Array]:
    """Map data sets of an opened file read-only: only the parts in use take memory; StateError as `extent`."""
    size = os.fstat(stream.fileno()).st_size
    with h5py.File(stream, "r") as file:
        extents = [extent(file, name, path, size) for name in names]
    return [
        np.empty(shape, dtype) if 0 in shape else np.asarray(np.memmap(stream, dtype, "r", offset, shape))
        for offset, shape, dtype in extents
    ]


def text(file: h5py.File | h5py.Group, name: str, path: Path) -> str:
    """Return a text attribute; StateError if it is missing."""
    value = file.attrs.get(name)
    if not isinstance(value, str):
        raise StateError(f"{path}: attribute {name}: missing or no text")
    return value


def number(file: h5py.File | h5py.Group, name: str, path: Path) -> float | int:
    """Return a numeric attribute; StateError unless it is there, finite and at least 0."""
    value = file.attrs.get(name)
    if not isinstance(value, np.integer | np.floating) or not 0 <= value < np.inf:
        raise StateError(f"{path}: attribute {name}: missing, or no number from 0")
    return value.item()
