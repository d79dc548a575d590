"""The loops people write today to embed a folder of images or to fine-tune on it, with the same weights as ours."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from embetter.vision import ImageLoader, TimmEncoder
from PIL import Image
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pipeline.networks.network import Backbone


class Folder(Dataset[Tensor]):
    """Images as torchvision's tutorials read them."""

    def __init__(self, paths: Sequence[Path], backbone: Backbone, size: int) -> None:
        self.paths = paths
        self.transform = v2.Compose([
            v2.Resize(size, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((backbone.mean.flatten() / 255).tolist(), (backbone.std.flatten() / 255).tolist()),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        image: Tensor = self.transform(Image.open(self.paths[place]).convert("RGB"))
        return image


def dataloader(paths: Sequence[Path], backbone: Backbone, size: int, batch_size: int, workers: int, out: Path) -> None:
    """Dataset, DataLoader, eager model in evaluation mode, rows to a file."""
    model = nn.Sequential(backbone.blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    rows = []
    with torch.inference_mode():
        for images in DataLoader(Folder(paths, backbone, size), batch_size, num_workers=workers):
            rows.append(model(images).numpy())  # noqa: PERF401  # as people write it
    np.save(out, np.concatenate(rows))


def embetter(paths: Sequence[Path], name: str, out: Path) -> None:
    """Embed with embetter's pipeline; it downloads weights, so timm is told to leave them random."""
    create = timm.create_model
    timm.create_model = lambda name, pretrained, **options: create(name, pretrained=False, **options)  # noqa: ARG005
    try:
        pipeline = make_pipeline(ImageLoader(convert="RGB"), TimmEncoder(name))
    finally:
        timm.create_model = create
    np.save(out, pipeline.fit_transform([str(path) for path in paths]))


class Labelled(Dataset[tuple[Tensor, int]]):
    """Images with their classes, flipped at random either way."""

    def __init__(self, images: Folder, targets: Sequence[int]) -> None:
        self.images, self.targets = images, targets
        self.flips = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.flips(self.images[place]), int(self.targets[place])


def finetuning(
    paths: Sequence[Path], targets: Sequence[int], backbone: Backbone, size: int, boundary: str, workers: int
) -> Callable[[], None]:
    """Return an epoch of a plain loop: the blocks before the boundary run eagerly at every step, without gradients."""
    frozen, blocks = backbone.split_before(boundary)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 2))
    optimiser = torch.optim.AdamW([*blocks.parameters(), *head.parameters()], lr=5e-4)
    data = Labelled(Folder(paths, backbone, size), targets)
    loader = DataLoader(data, 32, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)

    def epoch() -> None:
        for images, labels in loader:
            with torch.no_grad():
                activations = frozen(images)
            loss = nn.functional.cross_entropy(head(blocks(activations)), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    return epoch
