"""Exports say exactly what dvc.lock says, in formats that others can read."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openlineage.client.generated import base
from openlineage.client.serde import Serde
from prov.model import ProvDocument

from pipeline.cli import main
from pipeline.core import locks, stamps
from pipeline.core.atomic import write_json
from pipeline.core.locks import Entry, Lock, Locked
from pipeline.lineage import chain
from pipeline.lineage.export import openlineage, prov
from tests.conftest import REPOSITORY, Project

# Whatever a person could name a file, a stage or a parameter.
NAMES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12)
MD5S = st.sampled_from(["0" * 32, "a" * 32, f"{'b' * 32}.dir"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | NAMES, lambda one: st.lists(one, max_size=2))
SIZES = st.integers(0, 2**63)
ENTRIES = st.builds(Entry, NAMES, MD5S, SIZES, st.none() | st.integers(1, 2**40))
FILES = st.lists(ENTRIES, max_size=3).map(lambda some: {one.path: one for one in some})
PARAMS = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=2), max_size=2)
LOCKS = st.dictionaries(NAMES, st.builds(Locked, cmd=NAMES, deps=FILES, params=PARAMS, outs=FILES), max_size=3)
Edges = set[tuple[str, str, str]]


def edges(lock: Lock, side: str) -> Edges:
    return {(name, one.path, one.md5) for name, stage in lock.items() for one in getattr(stage, side).values()}


@pytest.fixture
def exported(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bytes]:
    """Return a function that exports the lock of this repository and returns the bytes."""
    Path("dvc.lock").write_bytes((REPOSITORY / "dvc.lock").read_bytes())

    def export(name: str) -> bytes:
        path = Path("folder/export.json")
        path.parent.mkdir(exist_ok=True)
        assert main(["provenance", name, str(path)]) == 0
        assert [one.name for one in path.parent.iterdir()] == [path.name]
        return path.read_bytes()

    return export


@pytest.mark.parametrize("name", ["prov", "openlineage"])
def test_two_exports_of_the_same_state_are_the_same_bytes(exported: Callable[[str], bytes], name: str) -> None:
    first = exported(name)
    assert len(first) > 10_000
    assert exported(name) == first


@pytest.mark.parametrize("name", ["prov", "openlineage"])
def test_without_the_package_the_remedy_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path("dvc.lock").write_bytes((REPOSITORY / "dvc.lock").read_bytes())
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["provenance", name, "export"]) == 2
    assert capsys.readouterr().err == f"headswap provenance: {name}: not installed: pip install 'headswap[lineage]'\n"
    assert not Path("export").exists()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["provv", "a"], "format: got 'provv', expected one of: openlineage, prov; did you mean 'prov'?"),
        (["prov", "data"], "data: is a folder, expected the name of a file"),
        (["prov", "a"], "dvc.lock: cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    project: Project, capsys: pytest.CaptureFixture[str], target: list[str], expected: str
) -> None:
    assert main(["provenance", *target]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("dvc.lock", "belongs to this pipeline"),
        ("data/../params.yaml", "belongs to this pipeline"),
        ("data/manifest.parquet", "is listed in dvc.lock"),
        ("models/efficientnet_lite0/logreg/notes.json", "in a folder that is"),
        ("[a]*.md", "is tracked by git"),
        ("nowhere/export.json", "nowhere is no folder"),
    ],
)
def test_an_export_overwrites_nothing_of_the_project(
    project: Project, capsys: pytest.CaptureFixture[str], target: str, expected: str
) -> None:
    Path("dvc.lock").write_bytes((REPOSITORY / "dvc.lock").read_bytes())
    Path("[a]*.md").touch()
    Path("models/efficientnet_lite0/logreg").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "--literal-pathspecs", "add", "[a]*.md"], check=True)
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert main(["provenance", "prov", target]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"headswap provenance: {Path(target)}: ")
    assert expected in line
    assert not Path("nowhere").exists()
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
    assert main(["provenance", "prov", "a.md"]) == 0


class TestProv:
    @given(LOCKS)
    def test_it_reads_back_as_the_same_document_with_the_edges_of_the_lock(self, lock: Lock) -> None:
        made = prov.document(lock, {})
        text = prov.render(lock)
        assert ProvDocument.deserialize(content=text, format="json") == made
        content = json.loads(text)
        files = {name: (one["dvc:path"], one["dvc:md5"]) for name, one in content.get("entity", {}).items()}
        stages = {name: one["dvc:stage"] for name, one in content.get("activity", {}).items()}
        assert set(stages.values()) == set(lock)
        for side, kind in (("deps", "used"), ("outs", "wasGeneratedBy")):
            relations = content.get(kind, {}).values()
            found = [(stages[one["prov:activity"]], *files[one["prov:entity"]]) for one in relations]
            assert len(found) == len(set(found))
            assert set(found) == edges(lock, side)

    @given(LOCKS)
    def test_an_export_holds_nothing_that_was_not_recorded(self, lock: Lock) -> None:
        content = json.loads(prov.render(lock))
        assert set(content) <= {"prefix", "entity", "activity", "used", "wasGeneratedBy"}
        assert all(set(one) <= {"prov:activity", "prov:entity"} for one in content.get("used", {}).values())
        assert not any(key.startswith("prov:") for one in content.get("activity", {}).values() for key in one)

    @given(NAMES, NAMES)
    def test_different_names_have_different_identifiers(self, one: str, other: str) -> None:
        lock = {name: Locked("true", {}, {}, {}) for name in (one, other)}
        assert len(prov.document(lock, {}).get_records()) == len(lock)

    def test_a_sha256_is_exported_only_if_file_lock_and_lineage_agree(self, project: Project) -> None:
        contents = {"a": b"same", "b": b"changed since", "c": b"of another lineage"}
        for name, content in contents.items():
            Path(name).write_bytes(content)
        nodes = {name: {"role": "run", "sha256": stamps.sha256_bytes(content)} for name, content in contents.items()}
        nodes["c"]["sha256"] = "0" * 64
        write_json(chain.LINEAGE, {"nodes": nodes, "images": 0, "made_with": {}, "schema_version": 1})
        outs = {name: Entry(name, hashlib.md5(content).hexdigest(), 1) for name, content in contents.items()}
        Path("b").write_bytes(b"now")
        known = prov.known_sha256({"train": Locked("true", {}, {}, outs)})
        assert known == {("a", outs["a"].md5): stamps.sha256_bytes(b"same")}


def facets(of: type) -> dict[str, type]:
    """Return a facet class and all below it by the address of their schema."""
    below = {address: one for sub in of.__subclasses__() for address, one in facets(sub).items()}
    return {of._get_schema(): of, **below}  # type: ignore[attr-defined]


def fit(kind: Any, value: Any, place: str = "event") -> None:
    """Check JSON against a type that OpenLineage generated from its published schema, which its client ships."""
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if get_origin(kind) in (UnionType, Union):
        (kind,) = arms
        arms = list(get_args(kind))
    if get_origin(kind) is list:
        for number, one in enumerate(value):
            fit(arms[0], one, f"{place}[{number}]")
    elif get_origin(kind) is dict:
        known = facets(base.BaseFacet)
        for name, one in value.items():
            facet = known[one["_schemaURL"]]
            assert issubclass(facet, arms[1]), f"{place}.{name}"
            fit(facet, one, f"{place}.{name}")
    elif attr.has(kind):
        fit_object(kind, value, place)
    else:
        assert value in [one.value for one in kind] if issubclass(kind, Enum) else type(value) is kind, place


def fit_object(kind: type, value: Any, place: str) -> None:
    hints, stated = get_type_hints(kind), {one.name: one for one in attr.fields(kind)}
    required = {name for name, one in stated.items() if one.default is attr.NOTHING}
    required |= {"producer", "schemaURL", "_producer", "_schemaURL"} & stated.keys()
    assert required <= value.keys() <= stated.keys(), place
    for name, one in value.items():
        fit(hints[name], one, f"{place}.{name}")
        if stated[name].validator:
            stated[name].validator(None, stated[name], one)


class TestOpenLineage:
    @given(LOCKS)
    def test_events_fit_the_published_schema_and_have_the_edges_of_the_lock(self, lock: Lock) -> None:
        events = [
            Serde.to_dict(openlineage.event(name, stage, "repository", "2026-01-01T00:00:00+00:00"))
            for name, stage in lock.items()
        ]
        for side, kind in (("deps", "inputs"), ("outs", "outputs")):
            found = [
                (one["job"]["name"], file["name"], file["facets"]["version"]["datasetVersion"])
                for one in events
                for file in one[kind]
            ]
            assert len(found) == len(set(found))
            assert set(found) == edges(lock, side)
        for one in events:
            fit(base.RunEvent, one)
            assert one["eventType"] == "COMPLETE"
        assert len({one["run"]["runId"] for one in events}) == len(events)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda one: one.pop("producer"),
            lambda one: one.update(eventTime="yesterday"),
            lambda one: one.update(other=1),
            lambda one: one["run"].update(runId="1"),
            lambda one: one["inputs"][0].pop("namespace"),
            lambda one: one["inputs"][0]["facets"]["version"].update(datasetVersion=1),
            lambda one: one["outputs"][0].update(outputFacets=one["outputs"][0]["facets"]),
        ],
    )
    def test_the_check_itself_finds_what_does_not_fit(self, spoil: Callable[[Any], object]) -> None:
        stage = Locked("true", {"a": Entry("a", "0", 1)}, {}, {"b": Entry("b", "0", 1)})
        event = Serde.to_dict(openlineage.event("train", stage, "repository", "2026-01-01T00:00:00+00:00"))
        fit(base.RunEvent, event)
        spoil(event)
        with pytest.raises((AssertionError, ValueError)):
            fit(base.RunEvent, event)

    def test_a_file_has_a_line_for_each_stage(self, exported: Callable[[str], bytes]) -> None:
        events = [json.loads(line) for line in exported("openlineage").splitlines()]
        assert {one["job"]["name"] for one in events} == set(locks.read())
        for one in events:
            fit(base.RunEvent, one)

    def test_the_time_is_that_of_the_commit_or_else_of_the_last_change(self, project: Project) -> None:
        def git(*arguments: str, **environment: str) -> None:
            command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
            subprocess.run(command, check=True, env={**os.environ, **environment})

        git("init", "--quiet")
        locks.LOCK.write_text("schema: '2.0'\n")
        os.utime(locks.LOCK, (0, 0))
        assert openlineage.event_time() == "1970-01-01T00:00:00+00:00"
        git("add", "dvc.lock")
        git("commit", "--quiet", "-m", "lock", GIT_COMMITTER_DATE="2026-01-02T03:04:05+01:00")
        assert openlineage.event_time() == "2026-01-02T02:04:05+00:00"
        locks.LOCK.write_text("schema: '2.0'\nstages: {}\n")
        os.utime(locks.LOCK, (0, 0))
        assert openlineage.event_time() == "1970-01-01T00:00:00+00:00"

    def test_another_entry_is_another_run(self) -> None:
        one, other = Locked("a", {}, {}, {}), Locked("b", {}, {}, {})
        assert openlineage.run_id("train", one) == openlineage.run_id("train", one)
        assert len({openlineage.run_id(name, stage) for name in "ab" for stage in (one, other)}) == 4
