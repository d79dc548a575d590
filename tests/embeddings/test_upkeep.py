"""Whatever upkeep does, the rows that are needed stay, bit for bit."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.embeddings import indexes, upkeep, users
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import SCHEMA_VERSION, keys_of, sha256_of, write_shard
from pipeline.embeddings.upkeep import Change, RecipeFolder
from tests.embeddings.test_cache import KEYS, ROWS, gathered
from tests.faults import fail_the_nth
from tests.soak import soak

ROOT = Path("c")
RECIPE = {"backbone": "tiny", "dtype": "float16", "schema_version": SCHEMA_VERSION}


@pytest.fixture(autouse=True, params=[1, 64], ids=["indexed", "not indexed"])
def _here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(indexes, "WORTHWHILE", request.param)


def cache() -> EmbeddingCache:
    return EmbeddingCache(ROOT, RECIPE)


def stored() -> RecipeFolder:
    (one,) = upkeep.recipes(ROOT)
    return one


def fill(shards: list[list[int]]) -> None:
    """Write shards of these rows, each with numbers of its own, so that it shows which one a row comes from."""
    empty = cache()
    for age, rows in enumerate(shards):
        empty.append(KEYS[rows], ROWS[rows] + 100 * age, Cost(len(rows), 2.0 * len(rows), 0, 100, 3.0 * len(rows)))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, unique=True), min_size=1, max_size=6), st.integers(2, 12))
@settings(max_examples=20)
def test_merging_changes_no_row_no_cost_and_no_missing_key(shards: list[list[int]], small: int) -> None:
    for path in ROOT.rglob("*.h5"):
        path.unlink()
    fill(shards)
    held = KEYS[sorted({row for rows in shards for row in rows})]
    before, cost, missing = gathered(cache(), held), cache().cost(held), cache().missing(KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "SMALL_ROWS", small)
        change = upkeep.merge(stored())
    np.testing.assert_array_equal(gathered(cache(), held), before)
    np.testing.assert_array_equal(cache().missing(KEYS), missing)
    assert cache().cost(held).seconds == pytest.approx(cost.seconds)
    assert cache().cost(held).joules == pytest.approx(3 * cost.seconds)
    assert cache().cost(held).peak_memory == 100
    assert len(stored().shards) == len(shards) - change.shards


def test_small_shards_become_one() -> None:
    fill([[0], [1, 2], [2, 3], [4]])
    change = upkeep.merge(stored())
    assert (change.shards, change.rows) == (3, 1)
    assert len(stored().shards) == 1


def test_pruning_keeps_exactly_the_needed_rows() -> None:
    fill([[0, 1], [2, 3], [4, 5]])
    wanted = KEYS[[0, 1, 2]]
    change = upkeep.prune(stored(), sha256_of(wanted), dry=False)
    assert (change.rows, change.shards) == (3, 2)
    assert cache().missing(KEYS).tolist() == [3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(gathered(cache(), wanted), [*ROWS[:2], ROWS[2] + 100])


def test_forgetting_removes_exactly_the_images_rows_in_all_views() -> None:
    fill([[0, 1], [2, 3], [4, 5]])
    views = keys_of([bytes(sha).hex() for sha in sha256_of(KEYS[[0, 2]])], [3, 7])
    cache().append(views, ROWS[[0, 2]], Cost(2.0, 2.0, 2))
    images = sha256_of(KEYS[[0, 4, 5]])
    dry = upkeep.forget(stored(), images, dry=True)
    assert (dry.rows, dry.shards) == (4, 3)
    assert upkeep.forget(stored(), images, dry=False) == dry
    assert cache().missing(KEYS).tolist() == [0, 4, 5, 6, 7, 8, 9]
    assert cache().missing(views).tolist() == [0]
    np.testing.assert_array_equal(gathered(cache(), KEYS[1:4]), [ROWS[1], *(ROWS[2:4] + 100)])
    assert upkeep.forget(stored(), images, dry=False) == Change()


def test_no_index_holds_a_forgotten_image() -> None:
    fill([[0, 1], [2, 3]])
    cache()
    before = len(list(ROOT.rglob(f"*{indexes.SUFFIX}")))
    upkeep.forget(stored(), sha256_of(KEYS[:1]), dry=True)
    assert len(list(ROOT.rglob(f"*{indexes.SUFFIX}"))) == before
    upkeep.forget(stored(), sha256_of(KEYS[:1]), dry=False)
    cache()
    files = [path.read_bytes() for path in ROOT.rglob("*") if path.is_file()]
    assert not any(sha256_of(KEYS[:1]).tobytes() in content for content in files)


def test_an_index_does_not_keep_an_empty_folder() -> None:
    fill([[0, 1], [2, 3]])
    cache()
    upkeep.prune(stored(), sha256_of(KEYS[:0]), dry=False)
    assert not list(ROOT.iterdir())


def test_forgetting_removes_unreadable_shards_and_an_emptied_folder() -> None:
    fill([[0], [1]])
    damaged = stored().shards[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    change = upkeep.forget(stored(), sha256_of(KEYS[5:]), dry=False)
    assert (change.rows, change.shards) == (0, 1)
    assert not damaged.exists()
    upkeep.forget(stored(), sha256_of(KEYS), dry=False)
    assert upkeep.recipes(ROOT) == []


def test_forgetting_removes_recipes_of_an_older_layout_whole() -> None:
    EmbeddingCache(ROOT, {**RECIPE, "schema_version": SCHEMA_VERSION - 1}).append(KEYS[:1], ROWS[:1], Cost())
    dry = upkeep.forget(stored(), sha256_of(KEYS[5:]), dry=True)
    assert (dry.rows, dry.shards) == (0, 1)
    upkeep.forget(stored(), sha256_of(KEYS[5:]), dry=False)
    assert upkeep.recipes(ROOT) == []


def test_a_dry_run_says_the_same_and_removes_nothing() -> None:
    fill([[0, 1], [2, 3], [4, 5]])
    before = {path: path.read_bytes() for path in ROOT.rglob("*") if path.is_file()}
    dry = upkeep.prune(stored(), sha256_of(KEYS[[0, 1, 2]]), dry=True)
    assert upkeep.remove(stored(), dry=True).shards == 3
    assert {path: path.read_bytes() for path in ROOT.rglob("*") if path.is_file()} == before
    assert dry == upkeep.prune(stored(), sha256_of(KEYS[[0, 1, 2]]), dry=False)


def test_removing_a_recipe_removes_its_folder() -> None:
    fill([[0, 1]])
    left = stored().path / ".x.h5.1.tmp"
    left.touch()
    os.utime(left, (0, 0))
    upkeep.remove(stored(), dry=False)
    assert upkeep.recipes(ROOT) == []
    assert not list(ROOT.iterdir())


def test_links_are_neither_followed_nor_removed() -> None:
    fill([[0, 1]])
    outside = write_shard(Path("elsewhere"), KEYS[:1], ROWS[:1], Cost(), 0).path
    link = stored().path / outside.name
    link.symlink_to(outside.resolve())
    (ROOT / ("b" * 64)).symlink_to(outside.parent.resolve())
    upkeep.prune(stored(), sha256_of(KEYS[:0]), dry=False)
    assert outside.exists()
    assert link.is_symlink()


@pytest.mark.parametrize("other", [{}, {**RECIPE, "dtype": "float32"}])
def test_a_folder_whose_recipe_is_not_its_name_is_refused(other: dict[str, object]) -> None:
    fill([[0]])
    (stored().path / "recipe.json").write_text(json.dumps(other))
    with pytest.raises(upkeep.StateError, match=r"recipe.json: is not the recipe its folder is named by"):
        upkeep.recipes(ROOT)


@pytest.mark.parametrize(
    "action",
    [
        upkeep.merge,
        lambda one: upkeep.prune(one, sha256_of(KEYS[:5]), dry=False),
        lambda one: upkeep.forget(one, sha256_of(KEYS[5:]), dry=False),
    ],
)
@pytest.mark.parametrize("step", [3, *soak([1])])
def test_a_failure_at_any_step_loses_no_needed_row(
    action: Callable[[RecipeFolder], object], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    for number in range(step, 100, step):
        for path in ROOT.rglob("*.h5"):
            path.unlink()
        fill([[0, 6], [1, 2, 7], [2, 3], [4, 8, 9]])
        before = gathered(cache(), KEYS[:5])
        with monkeypatch.context() as patch:
            failed = fail_the_nth(number, patch)
            with contextlib.suppress(OSError):
                action(stored())
        np.testing.assert_array_equal(gathered(cache(), KEYS[:5]), before)
        assert not list(ROOT.rglob("*.tmp"))
        if not failed:
            assert number > 3
            return
    pytest.fail("it never came to an end")


def test_the_repository_registers_itself_once_and_sees_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    users.register(ROOT)
    users.register(ROOT)
    assert len(list((ROOT / "users").iterdir())) == 1
    assert users.others(ROOT) == {}
    root = ROOT.resolve()
    Path("other").mkdir()
    monkeypatch.chdir("other")
    (others,) = users.others(root).values()
    assert others.startswith(str(root.parent))


def test_verifying_finds_the_damaged_shards() -> None:
    fill([[0], [1]])
    one, two = stored().shards
    one.write_bytes(two.read_bytes())
    assert [problem is None for problem in upkeep.verify(stored().shards)] == [False, True]


def test_rows_of_one_key_from_several_hosts_keep_the_oldest() -> None:
    folder = cache().folder
    fill([[9]])
    for created_ns in (3, 1, 2):
        write_shard(folder, keys_of([stamps.sha256_bytes(b"x")]), ROWS[:1] + created_ns, Cost(), created_ns)
    upkeep.merge(stored())
    key = keys_of([stamps.sha256_bytes(b"x")])
    np.testing.assert_array_equal(gathered(cache(), key), ROWS[:1] + 1)
