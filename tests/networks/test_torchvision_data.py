"""Data sets of torchvision, made of files that the tests write, in the formats that torchvision reads."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from pipeline.core.errors import InputError
from pipeline.data.init import torchvision_data


def write_mnist(root: Path, images: int) -> None:
    """Write the four files of MNIST, as its authors describe them."""
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("train", "t10k"):
        pixels = generator.integers(0, 256, (images, 28, 28), np.uint8)
        labels = np.arange(images, dtype=np.uint8) % 10
        for kind, magic, values in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">{1 + values.ndim}i", magic, *values.shape) + values.tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(content)
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


@pytest.fixture(autouse=True)
def _in_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_data_set_becomes_folders_by_split_and_class() -> None:
    write_mnist(torchvision_data.DOWNLOADS / "MNIST", 20)
    assert torchvision_data.lay_out("MNIST", Path("mnist")) == 40
    files = sorted(Path("mnist").rglob("*.png"))
    assert len(files) == 40
    assert Path("mnist/train/0 - zero/0000000.png") in files
    original = datasets.MNIST(str(torchvision_data.DOWNLOADS / "MNIST"), train=False)[3][0]
    assert np.array_equal(np.asarray(Image.open("mnist/test/3 - three/0000003.png")), np.asarray(original))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MINST", "did you mean 'MNIST'"),
        ("VOCDetection", "torchvision:VOCDetection"),
        ("EMNIST", "has none of the splits train, val, test"),
        ("CIFAR10", "cannot be downloaded or read"),
    ],
)
def test_an_unusable_data_set_is_reported_and_leaves_nothing(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(InputError, match=said):
        torchvision_data.lay_out(name, Path("images"))
    assert not list(Path().glob("*images*"))


def test_a_folder_that_exists_is_not_written_to() -> None:
    Path("mine").mkdir()
    with pytest.raises(InputError, match="exists already"):
        torchvision_data.lay_out("MNIST", Path("mine"))
    assert not list(Path("mine").iterdir())
