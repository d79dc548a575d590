"""W3C PROV-JSON of dvc.lock: files are entities, stages are activities, and nothing is added that was not recorded.

One entity for each distinct (path, md5): a stage that has not run again may have read an older version of a file.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.core.errors import StateError
from pipeline.core.locks import Entry, Lock
from pipeline.lineage import chain
from pipeline.lineage.audit import digests
from pipeline.lineage.audit.dvc_lock import entries, is_folder
from pipeline.lineage.export.exports import command, parameters, require

if TYPE_CHECKING:
    from prov.identifier import Identifier
    from prov.model import ProvDocument

NAMESPACES = {kind: f"urn:x-headswap:{kind}:" for kind in ("file", "stage", "param", "dvc")}
"""Namespaces of files in one version, stages, their parameters, and DVC's facts about all of these."""


def render(lock: Lock) -> str:
    """Return the PROV-JSON of a lock; the same text for the same lock and files."""
    text = document(lock, known_sha256(lock)).serialize(format="json")
    return json.dumps(json.loads(str(text)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def document(lock: Lock, sha256: Mapping[tuple[str, str], str]) -> "ProvDocument":
    """Turn a lock into a PROV document; `sha256` is by path and md5."""
    made: ProvDocument = require("prov.model").ProvDocument()
    for prefix, uri in NAMESPACES.items():
        made.add_namespace(prefix, uri)
    files = {(entry.path, entry.md5): entry for entry, _ in entries(lock)}
    for key in sorted(files):
        made.entity(_file(files[key]), _facts(files[key], sha256.get(key)))
    for name, stage in sorted(lock.items()):
        params: dict[str | Identifier, str] = {f"param:{_local(param)}": value for param, value in parameters(stage)}
        made.activity(_stage(name), other_attributes={"dvc:stage": name, "dvc:cmd": command(stage), **params})
        for _, entry in sorted(stage.deps.items()):
            made.used(_stage(name), _file(entry))
        for _, entry in sorted(stage.outs.items()):
            made.wasGeneratedBy(_file(entry), _stage(name))
    return made


def known_sha256(lock: Lock) -> dict[tuple[str, str], str]:
    """Return (path, md5) -> sha256 of the files that have the md5 in dvc.lock and the sha256 in lineage.json."""
    try:
        nodes = chain.read().nodes
    except StateError:  # missing, or of another version
        return {}
    files = [entry for entry, _ in entries(lock) if entry.path in nodes and not is_folder(entry)]
    found = digests.read((entry.path, algorithm) for entry in files for algorithm in ("md5", "sha256")).found
    return {
        (entry.path, entry.md5): nodes[entry.path].sha256
        for entry in files
        if (found[entry.path, "md5"], found[entry.path, "sha256"]) == (entry.md5, nodes[entry.path].sha256)
    }


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
