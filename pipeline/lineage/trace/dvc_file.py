"""The .dvc file beside the images, which `dvc add` or `dvc import-url` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core import locks
from pipeline.core.printable import printable
from pipeline.lineage.trace.branch import Branch


def dvc_branch(path: Path) -> Branch | None:
    """Describe the .dvc file of a path or of a folder above it; None if there is none.

    Raises:
        StateError: if it cannot be parsed.

    """
    for part in (path, *path.parents):
        beside = part.with_name(f"{part.name}.dvc") if part.name else Path()
        if beside.is_file():
            content = locks.load_yaml(beside)
            out = _first(content, "outs")
            size = f", {out['nfiles']} files" if "nfiles" in out else ""
            origins = [Branch(printable(f"imported from {one}")) for one in [_origin(_first(content, "deps"))] if one]
            return Branch(printable(f"tracked by {beside}: md5 {out.get('md5')}{size}"), origins)
    return None


def _first(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    listed = content.get(name)
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _origin(dependency: Mapping[str, Any]) -> str | None:
    """Return where an import came from: a path or URL, and the repository that it is in, if any."""
    repository = dependency.get("repo")
    inside = f" in {repository.get('url')}" if isinstance(repository, dict) else ""
    return f"{dependency['path']}{inside}" if "path" in dependency else None
