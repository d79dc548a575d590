"""A whole project whose images lie in an archive or under a remote root, from `prepare` to the audit and `forget`."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.cli import main
from pipeline.core import locks
from pipeline.core.errors import StateError
from pipeline.core.params import Params, load
from pipeline.core.sections import STORE
from pipeline.data import exclusions, manifest
from pipeline.data.sources import memo, store
from pipeline.lineage.audit.audit import audit
from pipeline.networks import backbones
from pipeline.stages import prepare
from tests.conftest import TINY, lay_out
from tests.data.sources.conftest import pack
from tests.stages.spine import run, working_in

ARCHIVE, IMAGE = Path("data/raw/photos.tar.gz"), "blue/01.png"
CONTENT: dict[str, bytes] = {}


def of(kind: str) -> dict[str, Any]:
    if kind == "archive":
        return {"source": "image_folder", "path": str(ARCHIVE)}
    return {"source": "table", "path": "data/labels", "remote": "memory://bucket"}


@pytest.fixture(scope="module", params=["archive", "remote"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Make a project that has run, once."""
    with working_in(tmp_path_factory.mktemp("made")) as root:
        project = lay_out(root, 8)
        CONTENT.update({str(path.relative_to(root / "data/raw")): path.read_bytes() for path in project.images})
        shutil.rmtree("data/raw")
        pack(ARCHIVE, CONTENT)
        Path("data/labels").mkdir()
        rows = (f"{name},{name.split('/')[0]}\n" for name in CONTENT)
        Path("data/labels/labels.csv").write_text("path,label\n" + "".join(rows))
        for name, content in CONTENT.items():
            fsspec.filesystem("memory").pipe(f"/bucket/{name}", content)
        run(project, data=of(request.param))
        yield request.param, root


@pytest.fixture
def project(made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Stand in a copy of it."""
    shutil.copytree(made[1], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "objects_of", lambda root: None)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
    return load()


def row_of(image_id: str) -> dict[str, str]:
    table = manifest.read()
    row = table.row_of()[image_id]
    return {"path": table.path[row], "sha256": table.sha256[row]}


def test_the_manifest_names_images_as_they_lie_there_and_opens_them_in_the_store(project: Params) -> None:
    table = manifest.read()
    assert list(table.image_id) == sorted(CONTENT)
    assert table.folder == project.data.folder == STORE
    sha256 = hashlib.sha256(CONTENT[IMAGE]).hexdigest()
    assert row_of(IMAGE) == {"path": f".headswap/images/{sha256[:2]}/{sha256}", "sha256": sha256}


def test_an_untouched_project_is_sound(project: Params) -> None:
    done = audit(project)
    assert done.findings == []
    assert any("memory://bucket: not read" in note for note in done.notes) is bool(project.data.remote)


def test_an_altered_image_in_the_store_is_found_and_not_used(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(row_of(IMAGE)["path"])
    path.write_bytes(CONTENT[IMAGE][:-1] + b"?")
    assert path.as_posix() in {finding.path for finding in audit(project).findings}
    with pytest.raises(StateError, match="delete it and run `headswap prepare`"):
        manifest.image_bytes(path, row_of(IMAGE)["sha256"])
    path.unlink()
    with pytest.raises(StateError, match="gone from the store; run `headswap prepare`"):
        manifest.image_bytes(path, row_of(IMAGE)["sha256"])
    before = manifest.MANIFEST.read_bytes()
    prepare.main(project)
    assert path.read_bytes() == CONTENT[IMAGE]
    assert manifest.MANIFEST.read_bytes() == before


def test_an_archive_that_no_longer_holds_what_the_manifest_says_is_found(project: Params) -> None:
    if project.data.remote:
        return
    pack(ARCHIVE, {**CONTENT, IMAGE: b"another"})
    assert [finding.path for finding in audit(project).findings] == [f"{ARCHIVE}/{IMAGE}"]
    pack(ARCHIVE, {name: content for name, content in CONTENT.items() if name != IMAGE} | {"red/new.png": b"x"})
    found = {finding.path for finding in audit(project).findings}
    assert found == {f"{ARCHIVE}/{IMAGE}", f"{ARCHIVE}/red/new.png"}


def test_an_image_is_forgotten_in_store_and_memo_and_named_where_it_came_from(
    project: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = row_of(IMAGE)["sha256"]
    assert main(["forget", IMAGE, "--yes"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ".headswap/images 1 image, and " in said
    assert f"{project.data.remote or ARCHIVE}/{IMAGE} the image itself" in said
    assert gone not in store.present()
    assert memo.forget([gone], dry=True) == 0
    prepare.main(project)
    assert gone not in manifest.read().sha256
    assert gone not in store.present()
    assert exclusions.forgotten() == [gone]


def test_what_store_or_archive_still_holds_of_a_forgotten_image_is_found(project: Params) -> None:
    path = Path(row_of(IMAGE)["path"])
    exclusions.add([row_of(IMAGE)["sha256"]], exclusions.FORGOTTEN)
    prepare.main(project)
    found = {finding.path for finding in audit(project).findings if "forgotten" in finding.expected}
    assert path.as_posix() in found
    assert (f"{ARCHIVE}/{IMAGE}" in found) is (not project.data.remote)


@pytest.mark.parametrize("altered", ["../../etc/passwd", ".headswap/images/ab/" + "ab" * 32, "data/labels/labels.csv"])
def test_a_row_may_only_open_its_own_image_in_the_store(project: Params, altered: str) -> None:
    table = manifest.read()
    for row in (0, 5):
        path = [altered if at == row else one for at, one in enumerate(table.path)]
        manifest.write(manifest.Manifest(**{**vars(table), "path": path}), {})
        with pytest.raises(StateError, match=r"row \d+: path: got"):
            manifest.read().require_folder(project.data.folder)


def test_the_trace_names_the_place(project: Params, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "data/manifest.parquet"]) == 0
    assert f"24 images in {project.data.remote or ARCHIVE}" in capsys.readouterr().out


def test_the_doctor_finds_nothing(project: Params) -> None:
    from pipeline.commands import doctor

    assert list(doctor._data(project)) == []
