"""Any source works in any archive, and no archive gets to say where anything is written."""

import hashlib
import os
import stat
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InputError
from pipeline.core.sections import STORE, Data
from pipeline.data import manifest, sources
from pipeline.data.sources import archives, memo, store
from pipeline.data.sources.place import Place
from pipeline.repair.leftovers import OURS
from tests.data.sources.conftest import CATS_AND_DOGS, pack, records_of
from tests.faults import fail_the_nth, finish, kill

KINDS = ("photos.zip", "photos.tar", "photos.tar.gz", "photos.tgz", "photos.tar.bz2", "photos.tar.xz")


def opened(path: Path, source: str = "image_folder", **settings: Any) -> Place:
    return sources.place_of(Data(source=source, path=path, **settings))


def taken_in(path: Path, source: str = "image_folder") -> dict[str, str]:
    """List an archive and read its images; return name -> sha256."""
    where = opened(path, source)
    names = [str(record.path) for record in sources.listed(where)]
    return dict(zip(names, sources.hashed(where, names), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_archive_gives_what_the_folder_would(kind: str) -> None:
    found = taken_in(pack(Path("data/raw", kind), CATS_AND_DOGS))
    assert list(found) == sorted(CATS_AND_DOGS)
    for name, sha256 in found.items():
        assert Path(manifest.stored_path(sha256)).read_bytes() == CATS_AND_DOGS[name]


def test_every_source_finds_its_table_in_an_archive() -> None:
    table = {"labels.csv": b"path,label,split\ncat/1.png,cat,train\ndog/1.png,dog,test\n"}
    (first, second) = records_of("table", pack(Path("photos.zip"), {**CATS_AND_DOGS, **table}))
    assert (first.label, first.split, second.label) == ("cat", "train", "dog")
    cells = {"labels.csv": b"cat/1.png 1.0 mono\n"}
    assert records_of("elpv", pack(Path("photos.tgz"), {**CATS_AND_DOGS, **cells}))[0].label == "defective"
    dealt = {f"train/{name}": content for name, content in CATS_AND_DOGS.items()}
    found = records_of("split_folders", pack(Path("photos.tar"), {**dealt, "valid/cat/9.png": b"x"}))
    assert {record.split for record in found} == {"train", "val"}


def test_a_folder_around_everything_is_not_a_class() -> None:
    within = {f"./photos/{name}": content for name, content in CATS_AND_DOGS.items()}
    beside = {"__MACOSX/photos/cat/._1.png": b"", ".DS_Store": b""}
    assert list(taken_in(pack(Path("photos.tar"), {**within, **beside}))) == sorted(CATS_AND_DOGS)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "cat/../../evil.png"])
@pytest.mark.parametrize("kind", ["photos.zip", "photos.tar"])
def test_a_name_outside_the_archive_is_refused_and_nothing_written(kind: str, name: str) -> None:
    path = pack(Path("in", kind), {**CATS_AND_DOGS, name: b"x"})
    with pytest.raises(InputError, match="leads out of|'..' in a path|printable"):
        taken_in(path)
    assert sorted(Path().rglob("*")) == [Path("in"), path]


def test_links_devices_and_pipes_are_named() -> None:
    pack(Path("photos.tar"), CATS_AND_DOGS)
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    with tarfile.open("photos.tar", "a") as archive:
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"cat/odd{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with zipfile.ZipFile(pack(Path("photos.zip"), CATS_AND_DOGS), "a") as zipped:
        link = zipfile.ZipInfo("cat/odd.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(InputError) as caught:
        taken_in(Path("photos.tar"))
    assert [f"photos.tar/cat/odd{n}.png: {archives.NO_FILE}" for n in range(4)] == list(caught.value.problems)
    with pytest.raises(InputError, match="odd.png: a link or a device"):
        taken_in(Path("photos.zip"))


def test_a_member_with_a_repeated_name_is_named() -> None:
    path = pack(Path("photos.zip"), CATS_AND_DOGS)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/1.png", "x")
    with pytest.raises(InputError, match="1.png: twice in the archive"):
        taken_in(Path("photos.zip"))


def test_a_password_is_asked_for_in_words() -> None:
    content = bytearray(pack(Path("photos.zip"), CATS_AND_DOGS).read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # where the flags stand
        start = -1
        while (start := content.find(magic, start + 1)) >= 0:
            content[start + at] |= 1
    Path("photos.zip").write_bytes(content)
    with pytest.raises(InputError, match="encrypted; make an archive without a password") as caught:
        taken_in(Path("photos.zip"))
    assert caught.value.problems[-1] == "... 24 problems in all"


def test_compression_that_cannot_be_unpacked_piecewise_is_refused() -> None:
    with zipfile.ZipFile("photos.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.png", b"x")
        archive.writestr("dog/1.png", b"x")
    with pytest.raises(InputError, match="compressed by a rare method"):
        taken_in(Path("photos.zip"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_an_error_in_words_wherever_the_damage_is(kind: str) -> None:
    noise = {name: os.urandom(3000) for name in CATS_AND_DOGS}
    whole = pack(Path("photos", kind), noise).read_bytes()
    for share in (0.0, 0.3, 0.6, 0.9):
        Path("photos", kind).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match="damaged"):
            taken_in(Path("photos", kind))
    assert not list(Path().rglob("*.tmp"))


def test_a_byte_that_flipped_in_a_zip_is_found() -> None:
    path = pack(Path("photos.zip"), {"cat/1.png": os.urandom(3000), "dog/1.png": os.urandom(3000)})
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"photos.zip/cat/1.png: damaged"):
        taken_in(path)


def test_a_tar_with_a_damaged_middle_is_refused() -> None:
    content = bytearray(pack(Path("photos.tar"), CATS_AND_DOGS).read_bytes())
    content[10 * 1024 : 10 * 1024 + 200] = b"\xff" * 200  # a header
    Path("photos.tar").write_bytes(content)
    with pytest.raises(InputError, match="breaks off in the middle"):
        taken_in(Path("photos.tar"))


def test_an_absurdly_large_member_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    path = pack(Path("photos.zip"), {**CATS_AND_DOGS, "cat/bomb.png": bytes(1001)})
    with pytest.raises(InputError, match=r"bomb.png: 1,001 bytes, expected an image of at most 1,000"):
        taken_in(path)


def test_memory_does_not_grow_with_the_unpacked_size(tmp_path: Path) -> None:
    path = pack(Path("photos.zip"), {"cat/bomb.png": bytes(200_000_000), "dog/1.png": b"x"})
    tracemalloc.start()
    taken_in(path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_header_that_asks_for_all_memory_is_refused() -> None:
    bomb = tarfile.TarInfo("x")
    bomb.type, bomb.size = tarfile.XHDTYPE, 1 << 40
    Path("photos.tar").write_bytes(bomb.tobuf() + bytes(10_000))
    with pytest.raises(InputError, match="damaged"):
        taken_in(Path("photos.tar"))


def test_an_archive_needs_room_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: Room())
    with pytest.raises(InputError, match="and 0.0 GB are free here"):
        taken_in(pack(Path("photos.zip"), CATS_AND_DOGS))


class Room:
    free = 1


def test_only_a_changed_archive_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "SETTLED_NS", 0)
    path = pack(Path("photos.zip"), CATS_AND_DOGS)
    before, reads = taken_in(path), list[str]()
    real = store.put
    monkeypatch.setattr(store, "put", lambda *args, **kwargs: reads.append("") or real(*args, **kwargs))
    assert taken_in(path) == before
    assert not reads
    Path(manifest.stored_path(before["cat/1.png"])).unlink()
    assert taken_in(path) == before
    assert len(reads) == 1
    pack(path, {**CATS_AND_DOGS, "cat/1.png": b"other"})
    assert taken_in(path)["cat/1.png"] != before["cat/1.png"]


@pytest.mark.parametrize("error", [5, 28])
def test_whatever_write_fails_nothing_is_half_written_and_the_next_run_ends_well(
    error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(Path("photos.zip"), CATS_AND_DOGS)
    for number in range(1, 40):
        with monkeypatch.context() as patch:
            failed = fail_the_nth(number, patch, error)
            try:
                taken_in(path)
            except OSError:
                assert failed
        for file in STORE.glob("*/*"):
            assert file.read_bytes() in CATS_AND_DOGS.values()
        assert not list(Path().rglob("*.tmp"))
        if not failed:
            break
    assert len(taken_in(path)) == 24


def test_what_is_excluded_is_not_kept() -> None:
    path = pack(Path("photos.zip"), CATS_AND_DOGS)
    gone = taken_in(path)["cat/1.png"]
    store.remove([gone])
    where = opened(path)
    sources.hashed(where, list(CATS_AND_DOGS), {gone})
    assert gone not in store.present()
    assert len(store.present()) == 23


def test_a_missing_archive_is_named() -> None:
    with pytest.raises(InputError, match="gone.zip: no such file; put the archive there"):
        records_of("image_folder", Path("gone.zip"))


def test_an_encoded_name_in_any_script_works() -> None:
    names = ("кот/№1.png", "狗/一.png", "قط/صورة.png")
    assert set(taken_in(pack(Path("photos.zip"), dict.fromkeys(names, b"x")))) == set(names)


def test_a_kill_in_the_middle_leaves_whole_images_only_and_the_next_run_ends_well() -> None:
    files = {f"{label}/{n}.png": os.urandom(200_000) for label in ("cat", "dog") for n in range(40)}
    path = pack(Path("photos.zip"), files)
    child = os.fork()
    if not child:
        os.setsid()
        taken_in(path)
        os._exit(0)
    while len(store.present()) < 3:
        time.sleep(0.001)
    kill(child)
    finish(child)
    expected = {hashlib.sha256(content).hexdigest(): content for content in files.values()}
    assert all(file.read_bytes() == expected[file.name] for file in STORE.glob("*/*"))
    assert 3 <= len(store.present()) < 80
    for left in STORE.glob(".*"):
        assert OURS.fullmatch(left.name), "the doctor would not know it"
        os.utime(left, (0, 0))
    assert set(taken_in(path).values()) == store.present() == set(expected)
    assert not list(STORE.glob(".*"))
