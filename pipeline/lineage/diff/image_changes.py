"""How the images differ between two manifests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.manifest import Manifest

SHOWN = 5
"""The number of examples for each kind of change."""


@dataclass(frozen=True)
class ImageChanges:
    """The images that changed, by kind of change."""

    number: tuple[int, int]
    """Of all images, before and after."""
    kinds: Mapping[str, Sequence[str]]
    """Kind -> a description of each such image; kinds without images are left out."""
    tested: tuple[int, int] | None
    """Test images before and after, if they are not the same ones with the same labels."""

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind of change."""
        before, after = self.number
        yield f"{before} images" if before == after else f"{before} -> {after} images"
        for kind, images in self.kinds.items():
            yield f"{len(images)} {kind}: {examples(images)}"
        if self.tested:
            old, new = self.tested
            yield f"the test images are not the same ({old} -> {new}): test scores are of different images"

    def summary(self) -> str:
        """Describe the changes in one line."""
        listed = ", ".join(f"{len(images)} {kind} ({examples(images)})" for kind, images in self.kinds.items())
        return listed or "other files, but no image that is listed"


def examples(all_of_them: Sequence[str]) -> str:
    """Join the first few of some names."""
    return ", ".join(all_of_them[:SHOWN]) + (", ..." if len(all_of_them) > SHOWN else "")


def compare(before: Manifest, after: Manifest) -> ImageChanges:
    """Match images by id; one removed and one added image with the same bytes, and no others, are one renamed."""
    old, new = before.row_of(), after.row_of()
    gone = [image_id for image_id in old if image_id not in new]
    come = [image_id for image_id in new if image_id not in old]
    former = _renamed(before, gone, after, come)
    pairs = [(old[former.get(image_id, image_id)], row) for image_id, row in new.items() if image_id in old | former]
    kinds = {
        "added": [image_id for image_id in come if image_id not in former],
        "removed": [image_id for image_id in gone if image_id not in former.values()],
        "renamed": [f"{was} -> {image_id}" for image_id, was in former.items()],
        "with other bytes": [after.image_id[b] for a, b in pairs if before.sha256[a] != after.sha256[b]],
        "relabelled": _differing(before.label, after.label, pairs, after),
        "moved between splits": _differing(before.split, after.split, pairs, after),
        "regrouped": _differing(before.group, after.group, pairs, after),
    }
    tested = _test_images(before), _test_images(after)
    return ImageChanges(
        number=(len(before), len(after)),
        kinds={kind: images for kind, images in kinds.items() if images},
        tested=None if tested[0] == tested[1] else (len(tested[0]), len(tested[1])),
    )


def _renamed(before: Manifest, gone: Sequence[str], after: Manifest, come: Sequence[str]) -> dict[str, str]:
    """Return new id -> former id."""
    former, present = _by_bytes(before, gone), _by_bytes(after, come)
    return {
        ids[0]: former[sha256][0]
        for sha256, ids in present.items()
        if len(ids) == 1 and len(former.get(sha256, ())) == 1
    }


def _by_bytes(table: Manifest, image_ids: Sequence[str]) -> dict[str, list[str]]:
    row_of, found = table.row_of(), dict[str, list[str]]()
    for image_id in image_ids:
        found.setdefault(table.sha256[row_of[image_id]], []).append(image_id)
    return found


def _differing(
    before: Sequence[str | None], after: Sequence[str | None], pairs: Sequence[tuple[int, int]], table: Manifest
) -> list[str]:
    return [f"{table.image_id[b]}: {before[a]} -> {after[b]}" for a, b in pairs if before[a] != after[b]]


def _test_images(table: Manifest) -> list[tuple[str, str]]:
    """Return sha256 and label of every test image, sorted."""
    rows = zip(table.sha256, table.label, table.split, strict=True)
    return sorted((sha256, label) for sha256, label, split in rows if split == "test")
