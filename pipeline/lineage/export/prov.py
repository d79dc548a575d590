"""W3C PROV-JSON of dvc.lock: files are entities, stages are activities, and nothing stands there that was not recorded.

One entity for each distinct (path, md5): a stage that has not run again since may have read an older version of a file.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.locks import FOLDER_SUFFIX, Entry, Lock
from pipeline.lineage import chain
from pipeline.lineage.export.exports import command, parameters, require

if TYPE_CHECKING:
    from prov.identifier import Identifier
    from prov.model import ProvDocument

NAMESPACES = {kind: f"urn:x-headswap:{kind}:" for kind in ("file", "stage", "param", "dvc")}
"""Of files at one version, of stages, of their parameters, and of what DVC notes on all of these."""


def render(lock: Lock) -> str:
    """Return the PROV-JSON of a lock; the same text for the same lock and files."""
    text = document(lock, known_sha256(lock)).serialize(format="json")
    return json.dumps(json.loads(str(text)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def document(lock: Lock, sha256: Mapping[tuple[str, str], str]) -> "ProvDocument":
    """Turn a lock into a PROV document; `sha256` is by path and md5."""
    made: ProvDocument = require("prov.model").ProvDocument()
    for prefix, uri in NAMESPACES.items():
        made.add_namespace(prefix, uri)
    entries = {(entry.path, entry.md5): entry for entry in _entries(lock)}
    for key in sorted(entries):
        made.entity(_file(entries[key]), _facts(entries[key], sha256.get(key)))
    for name, stage in sorted(lock.items()):
        params: dict[str | Identifier, str] = {f"param:{_local(param)}": value for param, value in parameters(stage)}
        made.activity(_stage(name), other_attributes={"dvc:stage": name, "dvc:cmd": command(stage), **params})
        for _, entry in sorted(stage.deps.items()):
            made.used(_stage(name), _file(entry))
        for _, entry in sorted(stage.outs.items()):
            made.wasGeneratedBy(_file(entry), _stage(name))
    return made


def known_sha256(lock: Lock) -> dict[tuple[str, str], str]:
    """Return (path, md5) -> sha256 of the files that are now what dvc.lock and reports/lineage.json both say."""
    try:
        nodes = chain.read().nodes
    except StateError:  # there is none, or not of this version
        return {}
    found = {}
    for path, md5 in sorted({(entry.path, entry.md5) for entry in _entries(lock)}):
        if path in nodes and not md5.endswith(FOLDER_SUFFIX) and _hashes(path) == (md5, nodes[path].sha256):
            found[path, md5] = nodes[path].sha256
    return found


def _hashes(path: str) -> tuple[str, str] | None:
    """Return md5 and sha256 of one reading of a file, which must not be told apart by a change in between."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        with stamps.opened(Path(path)) as stream:
            while block := stream.read(1 << 20):
                md5.update(block)
                sha256.update(block)
    except StateError:
        return None
    return md5.hexdigest(), sha256.hexdigest()


def _entries(lock: Lock) -> list[Entry]:
    return [entry for stage in lock.values() for entry in (*stage.deps.values(), *stage.outs.values())]


def _facts(entry: Entry, sha256: str | None) -> "dict[str | Identifier, str | int]":
    facts: dict[str, str | int | None] = {
        "path": entry.path,
        "md5": entry.md5,
        "size": entry.size,
        "nfiles": entry.nfiles,
        "sha256": sha256,
    }
    return {f"dvc:{name}": value for name, value in facts.items() if value is not None}


def _file(entry: Entry) -> str:
    return f"file:{_local(f'{entry.md5}/{entry.path}')}"


def _stage(name: str) -> str:
    return f"stage:{_local(name)}"


def _local(name: str) -> str:
    """Encode a name as the local part of a qualified name (PN_LOCAL in PROV-N): other characters as UTF-8."""
    return re.sub(
        r"[^A-Za-z0-9_/@.-]|^[.-]|\.$", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name
    )
