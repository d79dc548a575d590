"""The sections data, split and run of params.yaml for some images, with the reasons as comments."""

import json
import re
from collections.abc import Mapping, Sequence

from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.core.words import counted
from pipeline.data.init.overview import Overview
from pipeline.data.init.recognition import Layout

ENOUGH_FOR_HASH = 60
"""Images of the smallest class, or groups, with which chance hardly ever leaves a split empty: 0.85^60 < 1e-4."""
MANY, VERY_MANY = 50_000, 500_000
"""Images from which on a kernel machine takes long, and features may not fit in memory."""
_NO_STRINGS = ("true", "false", "null", "yes", "no", "on", "off")


def sections(found: Layout, seen: Overview, params: Params) -> Mapping[str, str]:
    """Return the new text of each section; fractions, backbones, `on_leak` and `near_duplicate` stay as they are."""
    return {"data": _data(found, seen, params), "split": _split(found, seen, params), "run": _run(seen, params)}


def _data(found: Layout, seen: Overview, params: Params) -> str:
    columns = ", ".join(f"{ours}: {_scalar(theirs)}" for ours, theirs in found.columns.items())
    lines = [
        ("data:", ""),
        (f"  source: {found.source}", found.why),
        (f"  path: {_scalar(found.path.as_posix())}", f"{counted(sum(seen.of_class.values()), 'image')}"),
        (f"  columns: {{{columns}}}", "the names that these columns have in the table") if columns else None,
        (f"  remote: {_scalar(found.remote)}", "the table's paths lie under this") if found.remote else None,
        (f"  on_leak: {params.data.on_leak}", "warn | fail: if splits share an image, a group or a near-duplicate"),
        (
            f"  near_duplicate: {params.data.near_duplicate:g}",
            "the least correlation of pixels that makes two images near-duplicates",
        ),
    ]
    return _commented([line for line in lines if line])


def _split(found: Layout, seen: Overview, params: Params) -> str:
    method, why = _method(found, seen)
    return _commented([
        ("split:", ""),
        (f"  method: {method}", why),
        (f"  val: {params.split.val:g}", "for choices: early stopping, \"the best head\""),
        (f"  test: {params.split.test:g}", "read once, by compare"),
    ])  # fmt: skip


def _method(found: Layout, seen: Overview) -> tuple[str, str]:
    if found.splits:
        return "predefined", "as the data says; if it has no val part, `val` of train is taken by content"
    smallest = min(seen.of_class.values(), default=0)
    if min(smallest, seen.groups or smallest) < ENOUGH_FOR_HASH:
        few = counted(seen.groups, "group") if seen.groups else f"{counted(smallest, 'image')} in the smallest class"
        return "stratified", f"with only {few}, chance could leave a split empty; groups and copies stay together"
    if seen.groups:
        return "grouped", "no group is in two splits, and adding images never moves an old one"
    return "hash", "adding images never moves an old one, and copies stay together"


def _run(seen: Overview, params: Params) -> str:
    heads, why = _heads(sum(seen.of_class.values()))
    known = [head for head in heads if head in params.heads] or list(params.run.heads)
    return _commented([
        ("run:", ""),
        (f"  backbones: [{', '.join(params.run.backbones)}]", "`headswap backbones` lists more"),
        (f"  heads: [{', '.join(known)}]", why),
        ("  plans: []", f"add one to see what fine-tuning buys: {', '.join(params.plans) or 'see docs/finetuning.md'}"),
    ])  # fmt: skip


def _heads(images: int) -> tuple[Sequence[str], str]:
    if images >= VERY_MANY:
        return ("streaming_linear", "streaming_mlp"), "these train from the file, in bounded memory"
    if images >= MANY:
        return ("logreg", "nystroem_svm", "mlp"), "fast enough for so many images"
    return ("logreg", "linear_svm", "rbf_svm", "knn"), "of different kinds; there are more under `heads:` below"


def _scalar(text: str) -> str:
    """Return text as a YAML string, quoted if YAML may read it as something else."""
    plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in _NO_STRINGS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _commented(lines: Sequence[tuple[str, str]]) -> str:
    """Append the comments to the lines, aligned behind the longest line that has fewer than 50 characters."""
    width = max((len(text) for text, _ in lines if len(text) < 50), default=0)
    # A comment may contain a file's name, and so any character; it must stay on its line.
    return "".join(f"{text.ljust(width)}  # {printable(why)}\n" if why else f"{text}\n" for text, why in lines)
