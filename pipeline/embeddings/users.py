"""Notes in a cache that say which repositories use it: a shared cache is not pruned for one of them alone."""

import json
import platform
from pathlib import Path

from pipeline.core import stamps
from pipeline.core.atomic import write_json
from pipeline.core.errors import StateError


def register(root: Path) -> None:
    """Note in the cache that the repository in the current folder uses it."""
    path = _note_path(root)
    if not path.exists():
        write_json(path, _user())


def others(root: Path) -> dict[Path, str]:
    """Return the notes of other repositories that use the cache: file -> folder and host."""
    notes = (path for path in sorted((root / "users").glob("*.json")) if path != _note_path(root))
    return {path: _describe(path) for path in notes}


def _user() -> dict[str, str]:
    return {"host": platform.node(), "path": str(Path.cwd())}


def _note_path(root: Path) -> Path:
    return root / "users" / f"{stamps.sha256_json(_user())}.json"


def _describe(path: Path) -> str:
    try:
        user = json.loads(stamps.read_bytes(path))
        return f"{user['path']} on {user['host']}"
    except (ValueError, KeyError, TypeError, StateError):
        return "an unreadable note"
