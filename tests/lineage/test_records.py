"""An audit stays one when the records themselves are gone, broken or strange."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.core import params
from pipeline.data.exclusions import EXCLUDED
from pipeline.lineage.audit.audit import Audit, audit
from tests.conftest import Project
from tests.lineage.conftest import make
from tests.soak import soak


@pytest.fixture
def copy(recorded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a copy to spoil."""
    shutil.copytree(recorded.root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def places(done: Audit | None = None) -> list[str]:
    return [finding.place for finding in (done or audit(params.load())).findings]


@pytest.mark.parametrize("content", [None, "stages: {}\n", *soak(["", "stages: [", "\udcff"])])
def test_a_missing_or_empty_dvc_yaml_hides_nothing(copy: Path, content: str | None) -> None:
    if content is None:
        Path("dvc.yaml").unlink()
    else:
        Path("dvc.yaml").write_text(content, errors="surrogateescape")
    assert any(place.startswith(("dvc.yaml", "dvc.lock")) for place in places())


def test_without_the_dvc_folder_files_are_still_compared_with_the_lock(copy: Path) -> None:
    shutil.rmtree(".dvc")
    Path("pipeline/stages/train.py").write_text("")
    assert {".dvc", "pipeline/stages/train.py"} <= set(places())


@pytest.mark.parametrize("name", [".dvc/config", ".dvcignore"])
def test_a_repository_that_dvc_cannot_open_is_one_line(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path(name).write_bytes(b"[\xff")
    assert cli.main(["audit"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_altered_file_does_not_hide_an_extra_one_in_its_folder(copy: Path) -> None:
    Path("data/raw/red/03.png").write_bytes(b"x")
    Path("data/raw/notes.txt").write_text("x")
    found = {finding.path: finding.found for finding in audit(params.load()).findings}
    assert "data/raw/red/03.png" in found
    assert found["data/raw"].endswith("; beside the manifest's images: data/raw/notes.txt")


def test_a_package_that_hides_a_module_is_found(copy: Path) -> None:
    Path("pipeline/core/atomic").mkdir()
    shutil.copy("pipeline/core/atomic.py", "pipeline/core/atomic/__init__.py")
    assert "pipeline/core/atomic" in places()


def test_the_packages_own_code_is_compared_with_the_lock(copy: Path) -> None:
    with Path("pipeline/networks/__init__.py").open("a") as code:
        code.write("import os\n")
    assert "pipeline/networks" in places()


@pytest.mark.parametrize("name", ["models/other", "reports/other", "models/tiny/logreg/.other.tmp"])
def test_links_and_hidden_files_in_a_runs_folder_are_found(copy: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".tmp"):
        Path(name).write_text("x")
    else:
        Path(name).symlink_to(tmp_path)
    done = audit(params.load())
    assert name in places(done) or any(name in note for note in done.notes)


@pytest.mark.parametrize("name", ["data/embeddings/tiny.json", "models/tiny/logreg/run.json"])
@pytest.mark.parametrize(
    "content", ['{"stage": "a", "outputs": {}, "inputs": {}, "facts": null}', *soak(["[" * 200_000, "{}"])]
)
def test_a_malformed_stamp_is_found_and_no_other_file(copy: Path, name: str, content: str) -> None:
    Path(name).write_text(content)
    assert places() == [name]


def test_embeddings_of_an_older_version_do_not_crash_the_audit(copy: Path) -> None:
    path = Path("data/embeddings/tiny.json")
    content = json.loads(path.read_text())
    del content["facts"]["weights_pinned"]
    path.write_text(json.dumps(content))
    assert places() == [path.as_posix()]


@pytest.mark.parametrize(
    "text", ["- path: x\n", "stages: [1]\n", "a: 1\n", "stages: {prepare: {cmd: x, params: {params.yaml: null}}}\n",
             "stages: {prepare: {cmd: x, params: {params.yaml: {seed: 2020-01-01}}}}\n",
             "stages: {prepare: {cmd: x, outs: [{path: a, md5: 123, size: 1}]}}\n"],
)  # fmt: skip
def test_a_malformed_lock_is_found(copy: Path, text: str) -> None:
    Path("dvc.lock").write_text(text)
    assert any(place.startswith("dvc.lock") for place in places())


def test_a_malformed_folder_object_does_not_crash_the_audit(copy: Path) -> None:
    import hashlib

    content = b'[{"x": 1}]'
    md5 = hashlib.md5(content).hexdigest()
    folder = Path(".dvc/cache/files/md5") / md5[:2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{md5[2:]}.dir").write_bytes(content)
    lock = Path("dvc.lock").read_text()
    old = lock.split("path: models/tiny/logreg\n")[1].split("md5: ")[1].split("\n")[0]
    if not old.endswith(".dir"):
        old = lock.split("path: models/tiny/logreg\n")[1].split("md5: ")[2].split("\n")[0]
    Path("dvc.lock").write_text(lock.replace(old, f"{md5}.dir"))
    assert "models/tiny/logreg" in places()


def test_a_malformed_list_of_excluded_images_does_not_hide_other_findings(copy: Path) -> None:
    EXCLUDED.write_text("sha256,reason\nx,forgotten\n")
    Path("tiny.pth").write_bytes(b"x")
    assert {EXCLUDED.as_posix(), "tiny.pth"} <= set(places())


def test_control_characters_in_names_are_escaped(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("reports/a\nheadswap audit: nothing was altered\x1b[2J").write_text("x")
    assert cli.main(["audit"]) == 1
    assert cli.main(["audit", "--json"]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err + printed.out
    assert "\nheadswap audit: nothing was altered" not in printed.err + printed.out


def test_a_data_folder_outside_the_project_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Project
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    shutil.copytree(recorded.root / "data/raw", tmp_path / "images")
    make(tmp_path / "in", data={"path": "../images"})
    assert places() == []
    (tmp_path / "images/red/03.png").write_bytes(b"x")
    assert places() == ["../images/red/03.png"]
