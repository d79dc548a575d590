import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.core.errors import InputError, StateError
from pipeline.data import manifest
from pipeline.data.sources import SOURCES
from pipeline.stages import prepare
from tests.conftest import Project
from tests.data.sources.conftest import records_of
from tests.faults import fail_the_nth


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/deep/2.JPG", "b/3.png", "b/notes.txt", ".hidden/4.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_an_image_folders_first_level_is_the_label(folder: Path) -> None:
    found = {str(record.path): record.label for record in records_of("image_folder", folder)}
    assert found == {"a/1.png": "a", "a/deep/2.JPG": "a", "b/3.png": "b"}


def test_a_csv_may_state_groups_and_splits(folder: Path) -> None:
    (folder / "labels.csv").write_text("path,label,split,group\na/1.png,cat,train,g1\nb/3.png,dog,test,\n")
    first, second = records_of("csv_file", folder)
    assert (first.label, first.split, first.group) == ("cat", "train", "g1")
    assert (second.label, second.split, second.group) == ("dog", "test", None)


def test_elpv_is_defective_above_one_half_and_stratified_by_cell_type(folder: Path) -> None:
    (folder / "loose.png").write_bytes(b"x")
    (folder / "labels.csv").write_text("a/1.png  0.6666666 mono\nb/3.png 0.3333333 poly\nloose.png 0.5 poly\n")
    found = [(record.label, record.stratum) for record in records_of("elpv", folder)]
    assert found == [("defective", "mono"), ("functional", "poly"), ("functional", "poly")]


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_source_refuses_an_empty_folder_in_words(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels.csv: cannot be read|got 0 images"):
        records_of(name, tmp_path)


def test_an_unknown_source_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'image_folder'"):
        records_of("image_foldr", tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        records_of("image_folder", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("gone.png,cat", "no such file"),
        ("../outside.png,cat", "leads out of the data folder"),
        ("link.png,cat", "leads out of the data folder"),
        ("dangling.png,cat", "no such file"),
        ("loop.png,cat", "no such file"),
        ("pipe.png,cat", "not a regular file"),
        ("a/1.png, ", "label: got ''"),
        ('a/1.png,"a\tb"', "printable characters"),
        ("a/../a/1.png,cat", "'..' in a path"),
        ("a/1.png,cat\na/1.png,cat", "listed twice"),
    ],
)
def test_an_unusable_entry_is_named(folder: Path, row: str, problem: str) -> None:
    data = folder / "data"
    (data / "a").mkdir(parents=True)
    (data / "a/1.png").write_bytes(b"x")
    (folder / "outside.png").write_bytes(b"x")
    (data / "link.png").symlink_to(folder / "outside.png")
    (data / "dangling.png").symlink_to("nothing.png")
    (data / "loop.png").symlink_to("loop.png")
    os.mkfifo(data / "pipe.png")
    (data / "labels.csv").write_text(f"path,label\n{row}\n")
    with pytest.raises(InputError, match=problem):
        records_of("csv_file", data)


def test_a_name_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "a/1.png").rename(folder / os.fsdecode(b"a/\xff.png"))
    with pytest.raises(InputError, match="not printable UTF-8"):
        records_of("image_folder", folder)


def test_only_the_first_five_of_many_problems_are_listed_with_the_total(folder: Path) -> None:
    rows = "".join(f"gone{n}.png,cat\n" for n in range(9))
    (folder / "labels.csv").write_text(f"path,label\n{rows}")
    with pytest.raises(InputError) as caught:
        records_of("csv_file", folder)
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1] == "... 9 problems in all"


def test_malformed_tables_are_named(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n")
    with pytest.raises(InputError, match=r"columns: got \['file', 'label'\], expected \['label', 'path'\] and"):
        records_of("csv_file", folder)
    (folder / "labels.csv").write_text("a/1.png likely mono\n")
    with pytest.raises(InputError, match=r"labels.csv:1: got 'a/1.png likely mono'"):
        records_of("elpv", folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("path,label\na/1.png,caf\u00e9\n".encode("latin-1"), "not UTF-8"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "not a table"),
        (b"path,label,label\na/1.png,cat,dog\n", "each once"),
    ],
)
def test_an_ambiguous_or_undecodable_table_is_refused(folder: Path, content: bytes, problem: str) -> None:
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        records_of("csv_file", folder)


def test_a_byte_order_mark_and_spaces_around_cells_are_no_part_of_a_name(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbfpath,label\na/1.png, cat \n")
    assert records_of("csv_file", folder)[0].label == "cat"


@pytest.mark.parametrize("probability", ["nan", "7.5", "-1"])
def test_an_elpv_probability_is_one(folder: Path, probability: str) -> None:
    (folder / "labels.csv").write_text(f"a/1.png {probability} mono\n")
    with pytest.raises(InputError, match=r"probability in \[0, 1\]"):
        records_of("elpv", folder)


def test_a_linked_class_folder_is_reported(folder: Path) -> None:
    (folder / "c").symlink_to(folder / "a")
    with pytest.raises(InputError, match="c: a link to a folder is not followed"):
        records_of("image_folder", folder)


def test_records_come_sorted_whatever_the_file_system_does(project: Project) -> None:
    paths = [str(record.path) for record in records_of("image_folder", Path("data/raw"))]
    assert paths == sorted(paths)


def test_the_projects_own_folder_may_be_the_data_folder(project: Project) -> None:
    for name in ("blue", "green", "red"):
        Path("data/raw", name).rename(name)
    params = project.write(data={"path": "."})
    Path("data").rename(".data")
    prepare.main(params)
    table = manifest.read()
    table.require_folder(Path())
    assert table.path == table.image_id


@pytest.mark.parametrize("error", [5, 28])
def test_whatever_write_fails_the_manifest_is_the_old_one_or_the_new(
    project: Project, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.main(project.write())
    before = manifest.MANIFEST.read_bytes()
    project.images[0].unlink()
    for number in range(1, 20):
        with monkeypatch.context() as patch:
            failed = fail_the_nth(number, patch, error)
            status = main(["prepare"])
        assert status == (2 if failed else 0)
        assert not list(Path().rglob("*.tmp"))
        if not failed:
            break
        assert manifest.MANIFEST.read_bytes() == before or len(pq.read_table(manifest.MANIFEST)) == 35
    assert len(manifest.read()) == 35


@pytest.mark.parametrize("altered", ["/etc/passwd", "a//b.png", "./a.png", "a/../b.png", "", "a\tb.png"])
def test_a_row_with_another_id_is_named_by_its_number(project: Project, altered: str) -> None:
    prepare.main(project.write())
    table = manifest.read()
    ids = [altered if row == 7 else name for row, name in enumerate(table.image_id)]
    paths = [f"data/raw/{name}" for name in ids]
    manifest.write(manifest.Manifest(**{**vars(table), "image_id": ids, "path": paths}), {})
    with pytest.raises(StateError, match="row 7: image_id: got"):
        manifest.read()
