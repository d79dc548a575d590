"""cache: list, verify, prune and merge what the frozen pass has stored."""

import itertools
import shutil
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.atomic import still_there
from pipeline.core.errors import CheckFailed, InputError, StateError, first_five
from pipeline.core.params import Params
from pipeline.core.tables import aligned
from pipeline.core.words import counted
from pipeline.embeddings import history, upkeep, users
from pipeline.embeddings.shards import keys_of, read_shard, sha256_of
from pipeline.embeddings.upkeep import Change, RecipeFolder
from pipeline.evaluation import runs
from pipeline.lineage.audit.carriers import checkpoints

OLD = timedelta(days=7)
"""The age at which a checkpoint is pruned."""
COLUMNS = ("recipe", "backbone", "layers", "size", "dtype", "rows", "MB", "shards")
HELP = "list what the frozen pass has stored; or verify, prune or merge it"


def arguments(parser: ArgumentParser) -> None:
    """Add options for what can be done besides listing."""
    for flag, help_ in {
        "verify": "read every shard, name the damaged ones and exit with 1",
        "prune": "say what no commit of this repository needs; remove it with --yes",
        "yes": "with --prune: remove",
        "ignore-missing": "with --prune: take old manifests that DVC's cache no longer holds as not needed",
        "merge": "put small shards together",
    }.items():
        parser.add_argument(f"--{flag}", action="store_true", help=help_)


def main(
    params: Params, *, verify: bool = False, merge: bool = False, prune: bool = False, yes: bool = False,
    ignore_missing: bool = False,
) -> str:  # fmt: skip
    """List the cache's recipes, or verify, prune or merge them; return the summary."""
    if verify + merge + prune > 1:
        raise InputError("got several of --verify, --merge and --prune, expected one at a time")
    if (yes or ignore_missing) and not prune:
        raise InputError("--yes and --ignore-missing say how to prune, expected --prune beside them")
    root = params.embed.cache
    stored = upkeep.recipes(root)
    if verify:
        return _verify(stored)
    if merge:
        change = _each("merge", (one for one in stored if one.is_current), upkeep.merge)
        return f"{change.shards} fewer shards, {change.rows} duplicate rows removed, {_megabytes(change.bytes)} freed"
    if prune:
        return _prune(params, stored, dry=not yes, ignore_missing=ignore_missing)
    return _table(root, stored)


def _table(root: Path, stored: list[RecipeFolder]) -> str:
    rows = [COLUMNS, *(_row(one) for one in tqdm(stored, desc="list", unit="recipe", leave=False, disable=None))]
    total = f"{root}: {counted(len(stored), 'recipe')}, {_megabytes(sum(one.bytes for one in stored))}"
    table = f"{total}\n{aligned(rows)}" if stored else total
    kept = checkpoints()
    size = _megabytes(sum(map(_size, kept)))
    return f"{table}\n{runs.CHECKPOINTS}: {len(kept)} of fine-tuning, {size}" if kept else table


def _size(folder: Path) -> int:
    return sum(looks.st_size for _, looks in still_there(folder.glob("*")))


def _row(one: RecipeFolder) -> tuple[str, ...]:
    recipe = one.recipe
    rows = str(sum(len(read_shard(path).keys) for path in one.shards)) if one.is_current else "old layout"
    layers = ",".join(recipe.get("columns") or recipe.get("layers") or ["?"])
    layers += " augmented" if "augment" in recipe else ""
    described = (recipe.get("backbone", "?"), layers, recipe.get("image_size", "?"), recipe.get("dtype", "?"))
    return (one.path.name[:10], *map(str, described), rows, f"{one.bytes / 1e6:.1f}", str(len(one.shards)))


def _verify(stored: list[RecipeFolder]) -> str:
    shards = list(itertools.chain.from_iterable(one.shards for one in stored if one.is_current))
    checked = tqdm(upkeep.verify(shards), total=len(shards), desc="verify", unit="shard", disable=None)
    if problems := [problem for problem in checked if problem]:
        raise CheckFailed(*problems)
    return f"{counted(len(shards), 'shard is', 'shards are')} unaltered"


def _prune(params: Params, stored: list[RecipeFolder], *, dry: bool, ignore_missing: bool) -> str:
    if others := users.others(params.embed.cache):
        listed = [f"{user} uses this cache, too; if it is gone, delete {path}" for path, user in others.items()]
        raise StateError(*first_five(listed, "other users"), "nothing was removed")
    needed = history.needed()
    if needed.unknown and not ignore_missing:
        lost = [f"{why}, so what it needs is not known" for why in needed.unknown.values()]
        raise StateError(
            *first_five(lost, "outputs"), "run `dvc fetch --all-commits`, or take them as not needed: --ignore-missing"
        )
    recipes, images = needed.recipes | _recipes_of(params), sha256_of(keys_of(sorted(needed.images)))

    def pruned(one: RecipeFolder) -> Change:
        if one.path.name not in recipes:
            return upkeep.remove(one, dry=dry)
        # rows of an older version that a commit needs are left as they are
        return upkeep.prune(one, images, dry=dry) if one.is_current else Change()

    change = _each("prune", stored, pruned)
    old = [folder for folder, looks in still_there(checkpoints()) if time.time() - looks.st_mtime > OLD.total_seconds()]
    change.bytes += sum(map(_size, old))
    if not dry:
        for folder in old:
            shutil.rmtree(folder)
    done = "would be removed; nothing was: add --yes" if dry else "removed"
    trainings = f" and {counted(len(old), 'checkpoint')}" if old else ""
    rows = f"{counted(change.rows, 'row')} in {counted(change.shards, 'shard')}"
    return f"{rows}{trainings}, {_megabytes(change.bytes)}, {done}"


def _recipes_of(params: Params) -> set[str]:
    """Return the recipes of the runs in params.yaml, which may have cached rows and no matrix yet."""
    from pipeline.finetuning import examples  # noqa: PLC0415
    from pipeline.networks import backbones, frozen_pass  # noqa: PLC0415  # seconds

    found: list[Mapping[str, object]] = []
    for name in params.run.backbones:
        loaded = backbones.load(name, params.backbone(name))
        plain = frozen_pass.recipe_of(loaded.identity, params.embed)
        found += [plain, frozen_pass.augmented(plain, params.embed)]
        plans = [params.plan(plan) for plan in dict.fromkeys([*params.run.plans, *params.curve.plans])]
        found += [examples.recipe_of(loaded, plan, params.embed) for plan in plans if plan.cache_frozen]
        begun = (plan for plan in plans if plan.start == "logistic")
        found += [examples.recipe_of_embedded(loaded, plan, params.embed) for plan in begun]
    return {stamps.sha256_json(recipe) for recipe in found}


def _each(name: str, stored: Iterable[RecipeFolder], change_one: Callable[[RecipeFolder], Change]) -> Change:
    total = Change()
    for one in tqdm(list(stored), desc=name, unit="recipe", disable=None):
        total += change_one(one)
    return total


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
