import subprocess
from pathlib import Path

import pytest

from pipeline.core import stamps
from pipeline.core.errors import InputError
from pipeline.data import exclusions, manifest
from pipeline.data.exclusions import EXCLUDED, FORGOTTEN
from pipeline.stages import prepare
from tests.conftest import REPOSITORY, Project
from tests.faults import fail_the_nth

A, B = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def test_a_missing_file_excludes_nothing() -> None:
    assert exclusions.read() == {}


def test_what_is_added_is_read_back_in_its_order() -> None:
    exclusions.add([B], "blurred, and dark")
    exclusions.add([A], FORGOTTEN)
    assert list(exclusions.read().items()) == [(B, "blurred, and dark"), (A, FORGOTTEN)]
    assert exclusions.forgotten() == [A]


def test_adding_known_images_writes_nothing() -> None:
    exclusions.add([A], FORGOTTEN)
    before = EXCLUDED.stat().st_ino
    exclusions.add([A], FORGOTTEN)
    assert EXCLUDED.stat().st_ino == before


def test_forgotten_outweighs_every_other_reason() -> None:
    exclusions.add([A], "blurred")
    exclusions.add([A], FORGOTTEN)
    assert exclusions.read() == {A: FORGOTTEN}
    for one, other in ((FORGOTTEN, "blurred"), ("blurred", FORGOTTEN)):
        EXCLUDED.write_text(f"sha256,reason\n{A},{one}\n{A},{other}\n")
        assert exclusions.read() == {A: FORGOTTEN}


def test_every_malformed_line_is_named() -> None:
    EXCLUDED.write_text(f"sha256,reason\n{A},x\n{A[:-1]},x\n\n{A.upper()},x\n{B},\n{B}\n")
    with pytest.raises(InputError) as caught:
        exclusions.read()
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{EXCLUDED}:{line}" for line in (3, 5, 6, 7)
    ]


@pytest.mark.parametrize("content", [b"", b"sha,reason\n", b"\xff\xfe", b'sha256,reason\n"a'])
def test_another_table_is_refused(content: bytes) -> None:
    EXCLUDED.write_bytes(content)
    with pytest.raises(InputError, match=r"data/excluded.csv"):
        exclusions.read()


def test_a_write_that_fails_leaves_the_old_list(monkeypatch: pytest.MonkeyPatch) -> None:
    exclusions.add([A], "blurred")
    for number in range(1, 4):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="error"):
            fail_the_nth(number, patch)
            exclusions.add([B], FORGOTTEN)
        assert exclusions.read() == {A: "blurred"}


def test_the_repository_keeps_the_list_in_git() -> None:
    kept = [EXCLUDED.as_posix(), "data/README.md", "data/raw/mine.dvc"]
    ignored = ["data/manifest.parquet", "data/embeddings/a.h5", "data/raw/mine/a.png", "data/raw/mine.zip"]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *kept, *ignored],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.split() == ignored
    assert (REPOSITORY / EXCLUDED).is_file()


def test_prepare_excludes_all_copies_of_an_excluded_image(project: Project) -> None:
    first = project.images[0]
    first.with_name("copy.png").write_bytes(first.read_bytes())
    exclusions.add([stamps.sha256_file(first)], "blurred")
    said = prepare.main(project.write())
    assert said.startswith("35 images, 35 distinct, 3 classes")
    assert said.endswith("; 2 left out by data/excluded.csv")
    assert stamps.sha256_file(first) not in manifest.read().sha256
    assert stamps.read(manifest.STAMP).facts["excluded"] == 2


def test_a_list_that_names_no_image_changes_no_byte_of_the_manifest(project: Project) -> None:
    prepare.main(project.write())
    before = manifest.MANIFEST.read_bytes(), manifest.STAMP.read_bytes()
    exclusions.add([A], "blurred")
    assert "left out" not in prepare.main(project.write())
    assert (manifest.MANIFEST.read_bytes(), manifest.STAMP.read_bytes()) == before


def test_nothing_left_is_an_error(project: Project) -> None:
    exclusions.add(map(stamps.sha256_file, project.images), "blurred")
    with pytest.raises(InputError, match=r"data/excluded.csv: leaves out all 36 images"):
        prepare.main(project.write())
