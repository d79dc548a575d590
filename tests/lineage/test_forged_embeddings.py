"""Forged embeddings, views and costs whose stamps agree with them are found."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.core import params, stamps
from pipeline.core.mismatches import Mismatch
from pipeline.data import exclusions, manifest
from pipeline.embeddings import matrix, upkeep
from pipeline.embeddings.matrix import Embeddings, RowBlocks
from pipeline.lineage.audit import consistency, embedding_rows
from pipeline.lineage.audit.recompute import Recomputed, recompute
from pipeline.stages import embed, prepare
from tests.conftest import Project
from tests.lineage.forging import edit, stamp_anew, write_manifest


@pytest.fixture
def embedded(project: Project) -> Callable[[], list[Mismatch]]:
    """Embed with further views; the function compares the matrix with all that is known of it."""
    read = project.write(embed={"copies": 2})
    prepare.main(read)
    embed.main(read, "tiny")
    return lambda: consistency.checked(lambda: consistency.embeddings(read, manifest.read(), "tiny"), "matrix")


def write_views(change: Callable[[Any], dict[str, Any]]) -> None:
    """Write the matrix with other further views."""
    old = matrix.read("tiny")
    assert old.augmented is not None
    new = replace(old.augmented, **change(old.augmented))

    def every(of: Embeddings | matrix.Augmented) -> RowBlocks:
        features = np.array(of.features)
        return RowBlocks(features.shape, features.dtype, of.recipe, [(np.arange(len(features)), features)])

    path = matrix.matrix_path("tiny")
    matrix.write(path, np.array(old.sha256), old.image_id, old.manifest_sha256, every(old), (every(new), new.row))
    stamp_anew(matrix.stamp_path("tiny"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda _: {}, None),
        (lambda old: {"features": np.array(old.features)[::-1]}, "augmented/features"),
        (lambda old: {"row": np.array(old.row)[::-1]}, "augmented/row"),
        (lambda old: {"row": np.array(old.row)[2:], "features": np.array(old.features)[2:]}, "augmented/row"),
        (lambda old: {"recipe": {**old.recipe, "augment": {"crop": 1}}}, "augmented: recipe"),
    ],
)
def test_augmented_views_are_compared_with_manifest_and_cache(
    embedded: Callable[[], list[Mismatch]], change: Callable[[Any], dict[str, Any]], part: str | None
) -> None:
    write_views(change)
    assert {finding.part for finding in embedded()} == ({part} if part else set())


def test_a_stamp_without_the_recipe_of_augmented_views_is_found(embedded: Callable[[], list[Mismatch]]) -> None:
    edit(matrix.stamp_path("tiny"), lambda stamp: stamp["facts"].pop("augmented_recipe"))
    assert [finding.part for finding in embedded()] == ["augmented: recipe"]


def test_a_cost_is_compared_with_a_cache_of_exactly_these_rows(embedded: Callable[[], list[Mismatch]]) -> None:
    edit(matrix.cost_path("tiny"), lambda cost: cost.update(seconds=cost["seconds"] * 1.001))
    assert embedded() == []
    (told,) = embedding_rows.costs(params.load(), "tiny")
    assert (told.path, told.part) == ("data/embeddings/tiny.cost.json", "seconds")
    shutil.rmtree(".headswap/embeddings")
    assert list(embedding_rows.costs(params.load(), "tiny")) == []


def test_a_cost_is_not_compared_with_merged_shards_that_hold_other_rows(project: Project) -> None:
    read, images = project.write(), project.images
    for left_out in (images[::2], [], images[:1]):  # two shards, then an image less
        exclusions.EXCLUDED.unlink(missing_ok=True)
        exclusions.add(map(stamps.sha256_file, left_out), "blurred")
        prepare.main(read)
        embed.main(read, "tiny")
    (stored,) = upkeep.recipes(read.embed.cache)
    upkeep.merge(stored)
    assert list(embedding_rows.costs(read, "tiny")) == []


def test_recomputing_a_row_of_no_image_is_a_finding(project: Project) -> None:
    read = project.write()
    prepare.main(read)
    embed.main(read, "tiny")
    old = manifest.read()
    write_manifest(**{name: getattr(old, name)[1:] for name in manifest.COLUMNS})
    (finding,) = consistency.checked(lambda: recompute(read, "tiny", 99, Recomputed()), "matrix")
    assert finding == Mismatch("matrix", finding.expected, f"content that raises KeyError '{old.image_id[0]}'")
