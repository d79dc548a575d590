"""Tiny projects to run the pipeline on."""

import copy
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from pipeline.core import params
from pipeline.core.params import Params
from pipeline.core.stamps import sha256_file
from pipeline.networks import backbones
from pipeline.networks.architectures import Architecture
from tests.preloaded import commands

# How long an example takes says something of the machine, not of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: several processes then end at about the same time."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Hear interrupts, also where the tests run in the background, for which a shell has them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


REPOSITORY = Path(__file__).parent.parent
PRELOADED = pytest.StashKey[str]()


@contextmanager
def preloaded_in_a_folder() -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests/offline")}
    with TemporaryDirectory() as folder, commands(Path(folder), environment):
        yield folder


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let all processes of a run have the same server of preloaded commands."""
    if PRELOADED not in node.config.stash:
        stack = ExitStack()
        node.config.stash[PRELOADED] = stack.enter_context(preloaded_in_a_folder())
        node.config.add_cleanup(stack.close)
    node.workerinput["preloaded"] = node.config.stash[PRELOADED]


@pytest.fixture(scope="session")
def preloaded(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a folder with commands that begin with their libraries loaded."""
    if shared := getattr(request.config, "workerinput", {}).get("preloaded"):
        yield Path(shared)
        return
    with preloaded_in_a_folder() as folder:
        yield Path(folder)


CLASSES = ("blue", "green", "red")
SIZE = 32


def tiny_params() -> dict[str, Any]:
    return {
        "seed": 0,
        "data": {"source": "image_folder", "path": "data/raw"},
        "split": {"method": "stratified", "val": 0.2, "test": 0.3},
        "embed": {"batch_size": 4, "runtime": "torch"},
        "selection": {"metric": "accuracy", "folds": 2},
        "curve": {"fractions": [0.5, 1.0], "seeds": 2, "heads": {"logreg": {"C": 0.1}}, "plans": []},
        "compare": {"bootstrap": 200},
        "run": {"backbones": ["tiny"], "heads": ["logreg"], "plans": ["last"]},
        "backbones": {"tiny": {"image_size": SIZE, "weights": "tiny.pth", "sha256": "0" * 64}},
        "heads": {"logreg": {"C": [0.1, 1.0]}, "knn": {"n_neighbors": 3}},
        "plans": {"last": {"unfreeze_from": "second", "epochs": 2, "batch_size": 4}},
    }


def tiny_network() -> nn.Module:
    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(block(3, 8), block(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


TINY = Architecture(
    build=tiny_network,
    cut=lambda model: {"first": model[0], "second": model[1]},  # type: ignore[index]
    weights=lambda: "tiny.pth",
)


def write_image(path: Path, name: str, number: int) -> None:
    """Write a noisy image in which one colour, that of the class, is brighter."""
    generator = np.random.default_rng([CLASSES.index(name), number])
    pixels = generator.integers(0, 120, size=(SIZE + 4, SIZE, 3), dtype=np.uint8)
    pixels[..., ("red", "green", "blue").index(name)] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


class Project:
    """A project folder, the current directory of the test, with helpers to change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = tiny_params()

    @property
    def images(self) -> list[Path]:
        return sorted((self.root / "data/raw").rglob("*.png"))

    def write(self, **sections: Any) -> Params:
        """Write params.yaml with some sections merged in, and read it."""
        for name, section in sections.items():
            if isinstance(section, dict):
                self.content[name] = {**self.content.get(name, {}), **section}
            else:
                self.content[name] = section
        with Path("params.yaml").open("w") as stream:
            YAML(typ="safe").dump(self.content, stream)
        return params.load()


def lay_out(root: Path, per_class: int) -> Project:
    """Put images of 3 classes and the weights of the tiny backbone into a project that is the current folder."""
    for name in CLASSES:
        for number in range(per_class):
            write_image(root / "data/raw" / name / f"{number:02}.png", name, number)
    torch.manual_seed(0)
    torch.save(tiny_network().state_dict(), "tiny.pth")
    made = Project(root)
    made.content["backbones"]["tiny"]["sha256"] = sha256_file(Path("tiny.pth"))
    return made


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make a project of 36 images in 3 classes, once; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("laid_out"))
        made = lay_out(Path.cwd(), 12)
        made.write()
    return made


@pytest.fixture
def project(laid_out: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Stand in a copy of it, with a tiny backbone that the catalogue knows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
    shutil.copytree(laid_out.root, tmp_path, dirs_exist_ok=True)
    torch.manual_seed(0)
    made = Project(tmp_path)
    made.content = copy.deepcopy(laid_out.content)
    return made


@pytest.fixture(scope="session")
def through(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make another and run all stages, once; return its folder, which nobody may change."""
    from tests.stages.spine import run, working_in

    with working_in(tmp_path_factory.mktemp("through")) as root:
        run(lay_out(root, 12))
    return root


@pytest.fixture
def finished(project: Project, through: Path) -> Project:
    """Stand in a copy of a project in which all stages have run."""
    shutil.copytree(through, project.root, dirs_exist_ok=True)
    return project


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the images that go through any prepared forward pass."""
    from pipeline.networks import runtime

    counted = [0]
    real = runtime.prepare

    def counting(network: nn.Module, name: str, example: runtime.Batch) -> runtime.Forward:
        forward = real(network, name, example)

        def counted_forward(batch: runtime.Batch) -> runtime.Floats:
            counted[0] += sum(image.any() for image in batch)  # padding is zero
            return forward(batch)

        return counted_forward

    monkeypatch.setattr(runtime, "prepare", counting)
    return lambda: counted[0]
