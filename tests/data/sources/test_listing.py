"""What each source reads, and what it says of data that is not as it should be."""

import os
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError
from pipeline.core.sections import Columns
from tests.data.sources.conftest import records_of


def lay_out(*names: str) -> Path:
    for name in names:
        path = Path("raw", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Path("raw")


def labelled(*labels: str) -> Path:
    """Write a table with an image for each label."""
    folder = lay_out(*(f"{n}.png" for n in range(len(labels))))
    pq.write_table(
        pa.table({"path": [f"{n}.png" for n in range(len(labels))], "label": labels}), folder / "labels.parquet"
    )
    return folder


def test_split_folders_say_label_and_split() -> None:
    folder = lay_out("train/cat/1.png", "Valid/cat/deep/2.png", "validation/dog/3.png", "test/dog/4.png")
    found = {str(record.path): (record.label, record.split) for record in records_of("split_folders", folder)}
    assert found == {
        "train/cat/1.png": ("cat", "train"),
        "Valid/cat/deep/2.png": ("cat", "val"),
        "validation/dog/3.png": ("dog", "val"),
        "test/dog/4.png": ("dog", "test"),
    }


def test_a_folder_that_is_no_split_is_named_with_the_nearest() -> None:
    folder = lay_out("train/cat/1.png", "tset/cat/1.png", "train/loose.png", "loose.png")
    with pytest.raises(InputError) as caught:
        records_of("split_folders", folder)
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "raw/loose.png",
        "raw/train/loose.png",
        "raw/tset/cat/1.png",
    ]
    assert "did you mean 'test'?" in caught.value.problems[2]


def test_images_beside_the_class_folders_are_named() -> None:
    folder = lay_out("cat/1.png", "dog/1.png", *(f"loose{n}.png" for n in range(7)))
    with pytest.raises(InputError, match=r"raw/loose0.png: not in a class folder; expected <class>/<image>") as caught:
        records_of("image_folder", folder)
    assert caught.value.problems[-1] == "... 7 images in all"


def test_the_users_own_columns_are_read_from_csv_and_parquet_alike() -> None:
    columns = Columns(path="file", label="kind", group="patient", split="fold")
    folder = lay_out("1.png", "2.png")
    (folder / "labels.csv").write_text("kind,age,file,patient\ncat,3,1.png,p1\n7,4,2.png,\n")
    from_csv = records_of("table", folder, columns)
    assert [(record.label, record.group, record.split) for record in from_csv] == [
        ("cat", "p1", None),
        ("7", None, None),
    ]
    (folder / "labels.csv").unlink()
    pq.write_table(
        pa.table({"kind": ["cat", "7"], "file": ["1.png", "2.png"], "patient": ["p1", None]}), folder / "labels.parquet"
    )
    assert records_of("table", folder, columns) == from_csv


def test_numbers_are_labels_and_so_are_categories() -> None:
    folder = lay_out("1.png", "2.png")
    for labels in (pa.array([3, 4]), pa.array(["3", "4"]).dictionary_encode()):
        pq.write_table(pa.table({"path": ["1.png", "2.png"], "label": labels}), folder / "labels.parquet")
        assert [record.label for record in records_of("table", folder)] == ["3", "4"]


def test_nan_is_not_a_label_and_an_empty_path_is_named() -> None:
    folder = lay_out("1.png", "2.png")
    pq.write_table(pa.table({"path": ["1.png", "2.png"], "label": [1.0, float("nan")]}), folder / "labels.parquet")
    with pytest.raises(InputError, match="label: got ''"):
        records_of("table", folder)
    pq.write_table(pa.table({"path": ["1.png", None], "label": [1, 2]}), folder / "labels.parquet")
    with pytest.raises(InputError, match="labels.parquet: row 2: no path"):
        records_of("table", folder)


def test_two_tables_or_none_are_refused() -> None:
    folder = lay_out("1.png", "labels.csv", "labels.parquet")
    with pytest.raises(InputError, match="got the tables labels.csv, labels.parquet, expected one"):
        records_of("table", folder)
    with pytest.raises(InputError, match="labels.csv: cannot be read"):
        records_of("table", lay_out("empty/1.png") / "empty")


def test_the_only_table_may_have_any_name() -> None:
    folder = lay_out("1.png")
    (folder / "mine.csv").write_text("path,label\n1.png,cat\n")
    assert records_of("table", folder)[0].label == "cat"
    (folder / "other.csv").write_text("path,label\n1.png,dog\n")
    with pytest.raises(InputError, match="got the tables mine.csv, other.csv, expected one, or one of them called"):
        records_of("table", folder)
    (folder / "other.csv").rename(folder / "labels.csv")
    assert records_of("table", folder)[0].label == "dog"


def test_a_damaged_parquet_file_and_a_row_of_another_length_are_named() -> None:
    folder = lay_out("1.png", "labels.parquet")
    with pytest.raises(InputError, match="labels.parquet: not a table"):
        records_of("table", folder)
    (folder / "labels.parquet").unlink()
    (folder / "labels.csv").write_text("path,label\n1.png,cat,dog\n")
    with pytest.raises(InputError, match="labels.csv:2: got 3 cells, expected 2"):
        records_of("table", folder)


def test_a_table_alone_is_refused_if_its_images_are_local() -> None:
    folder = lay_out("1.png")
    (folder / "mine.csv").write_text("path,label\n1.png,cat\n")
    with pytest.raises(InputError, match="DVC would not see its images change; set data.path: raw"):
        records_of("table", folder / "mine.csv")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("cat", " cat"),
        ("black  cat", "black cat"),
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
        ("Straße", "STRASSE"),
    ],
)
def test_labels_that_differ_only_in_spelling_are_named_in_pairs(one: str, other: str) -> None:
    folder = lay_out(f"{one}/1.png", f"{other}/2.png", "dog/1.png")
    with pytest.raises(InputError) as caught:
        records_of("image_folder", folder)
    (problem,) = caught.value.problems
    assert repr(one) in problem
    assert repr(other) in problem
    assert "expected one spelling of one class" in problem


def test_letters_are_classes_of_their_own() -> None:
    assert {record.label for record in records_of("table", labelled("a", "A", "\u00e9", "e"))} == {
        "a",
        "A",
        "\u00e9",
        "e",
    }


def test_labels_and_names_may_be_in_any_script() -> None:
    names = ("кошка/фото 1.png", "猫/写真.png", "قط/صورة.png", "😀/🐈.png")
    assert [str(record.path) for record in records_of("image_folder", lay_out(*names))] == sorted(names)


def test_an_unreadable_folder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real = lay_out("cat/1.png", "dog/1.png"), os.scandir

    def refusing(path: Path) -> object:
        if str(path).rstrip("/").endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=r"raw/dog/: cannot be read \(Permission denied\)"):
        records_of("image_folder", folder)


def test_a_path_in_a_linked_folder_is_judged_by_its_target() -> None:
    folder = lay_out("cat/1.png")
    lay_out("../outside/2.png")
    (folder / "inside").symlink_to("cat")
    (folder / "out").symlink_to("../outside")
    (folder / "labels.csv").write_text("path,label\ninside/1.png,cat\n")
    assert len(records_of("table", folder)) == 1
    (folder / "labels.csv").write_text("path,label\nout/2.png,cat\n/etc/hostname,cat\n")
    with pytest.raises(InputError) as caught:
        records_of("table", folder)
    absolute, outside = sorted(caught.value.problems)
    assert absolute.startswith("/etc/hostname: an absolute path, expected one from")
    assert "leads out of the data folder" in outside
