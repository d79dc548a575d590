"""Images under a remote root: fetched once, kept by content, and whatever goes wrong out there is said in words."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.core.errors import InputError
from pipeline.core.sections import Data
from pipeline.data import manifest, sources
from pipeline.data.sources import remotes, store
from tests.data.sources.conftest import CATS_AND_DOGS, Files, records_of

OLD = 1_500_000_000


def fetched(root: str, path: str = "labels") -> dict[str, str]:
    place = sources.place_of(Data(source="table", path=Path(path), remote=root))
    names = [str(record.path) for record in sources.listed(place)]
    return dict(zip(names, sources.hashed(place, names), strict=True))


def table_of(names: Sequence[str] | Mapping[str, bytes], path: str = "labels/labels.csv") -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("path,label\n" + "".join(f"{name},{name.split('/')[-2]}\n" for name in names))


def lay_out(files: Files, top: str = "far") -> Path:
    for name, content in files.items():
        path = Path(top, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (OLD, OLD))
    return Path(top).resolve()


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Serve the folder `far` on this machine."""
    folder = lay_out(CATS_AND_DOGS)
    Quiet.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def root_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def in_store(found: Mapping[str, str]) -> dict[str, bytes]:
    return {name: Path(manifest.stored_path(sha256)).read_bytes() for name, sha256 in found.items()}


def test_images_of_any_file_system_get_into_the_store() -> None:
    table_of(CATS_AND_DOGS)
    folder = lay_out(CATS_AND_DOGS)
    assert in_store(fetched(f"file://{folder}")) == CATS_AND_DOGS
    memory = fsspec.filesystem("memory")
    for name, content in CATS_AND_DOGS.items():
        memory.pipe(f"/bucket/{name}", content)
    assert in_store(fetched("memory://bucket")) == CATS_AND_DOGS


def test_images_come_over_http_and_only_once(server: ThreadingHTTPServer) -> None:
    table_of(CATS_AND_DOGS)
    found = fetched(root_of(server))
    assert in_store(found) == CATS_AND_DOGS
    asked = len(Quiet.asked)
    assert fetched(root_of(server)) == found
    assert len(Quiet.asked) == asked
    Path(manifest.stored_path(found["cat/3.png"])).unlink()
    assert in_store(fetched(root_of(server))) == CATS_AND_DOGS
    assert Quiet.asked[asked:] == ["/cat/3.png"]


def test_a_changed_remote_image_is_fetched_again(server: ThreadingHTTPServer) -> None:
    table_of(CATS_AND_DOGS)
    fetched(root_of(server))
    Path("far/cat/3.png").write_bytes(b"other")
    assert in_store(fetched(root_of(server)))["cat/3.png"] == b"other"


def test_cells_may_be_whole_urls_and_names_may_need_quoting(server: ThreadingHTTPServer) -> None:
    lay_out({"cat/a b#1?.png": b"odd", "cat/100%.png": b"per"})
    table_of([f"{root_of(server)}/cat/1.png", "cat/a b#1?.png", f"{root_of(server)}/cat/100%25.png"])
    assert in_store(fetched(root_of(server))) == {
        "cat/1.png": b"cat 1",
        "cat/a b#1?.png": b"odd",
        "cat/100%.png": b"per",
    }


def test_missing_images_are_gathered(server: ThreadingHTTPServer) -> None:
    table_of([*CATS_AND_DOGS, *(f"cat/gone{n}.png" for n in range(7))])
    with pytest.raises(InputError) as caught:
        fetched(root_of(server))
    assert f"{root_of(server)}/cat/gone0.png: no such file" in caught.value.problems
    assert caught.value.problems[-1] == "... 7 problems in all"
    assert not store.present()


def test_a_silent_host_is_reported_otherwise_than_a_missing_file() -> None:
    table_of(CATS_AND_DOGS)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/.*cannot be read \(Cannot connect to host"):
        fetched("http://127.0.0.1:9")


def test_a_path_out_of_the_root_is_never_requested(server: ThreadingHTTPServer) -> None:
    table_of(["cat/../../secret.png", f"{root_of(server)}/cat/%2e%2e/%2e%2e/secret.png"])
    with pytest.raises(InputError, match="'..' in a path"):
        fetched(root_of(server))
    assert not Quiet.asked


def test_images_read_before_an_error_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    table_of(CATS_AND_DOGS)
    root = f"file://{lay_out(CATS_AND_DOGS)}"
    monkeypatch.setattr(remotes, "SETTLED_NS", 0)
    monkeypatch.setattr(remotes, "_WORKERS", 1)
    real, done = remotes.Remote._pieces, list[str]()

    def failing(self: remotes.Remote, name: str, size: int | None) -> Iterator[bytes]:
        if len(done) == 15:
            raise InputError("the network is gone")
        done.append(name)
        return real(self, name, size)

    with monkeypatch.context() as patch:
        patch.setattr(remotes.Remote, "_pieces", failing)
        with pytest.raises(InputError, match="the network is gone"):
            fetched(root)
    counted = lambda self, name, size: done.append(name) or real(self, name, size)  # noqa: E731
    monkeypatch.setattr(remotes.Remote, "_pieces", counted)
    fetched(root)
    assert len(done) <= 24 + 4, "at most what waited was fetched again"


def test_a_table_alone_may_be_the_data_where_the_images_are_remote() -> None:
    table_of(CATS_AND_DOGS, "mine.csv")
    root = f"file://{lay_out(CATS_AND_DOGS)}"
    assert in_store(fetched(root, "mine.csv")) == CATS_AND_DOGS


def test_a_remote_root_needs_a_table_and_a_file_system_that_is_installed() -> None:
    table_of(CATS_AND_DOGS)
    with pytest.raises(InputError, match="set data.source: table"):
        records_of("image_folder", Path("labels"), remote="memory://bucket")
    with pytest.raises(InputError, match=r"data.remote: gs://bucket: .*gcsfs"):
        fetched("gs://bucket")
    with pytest.raises(InputError, match="Protocol not known: nonsense"):
        fetched("nonsense://bucket")


@pytest.mark.parametrize(
    ("found", "trusted"),
    [
        ({"ETag": "a", "size": 1}, True),
        ({"Last-Modified": "Thu, 01 Jan 2015 00:00:00 GMT", "size": 1}, True),
        ({"mtime": OLD - 1, "size": 1}, True),
        ({"mtime": OLD, "size": 1}, False),
        ({"Last-Modified": "some day", "size": 1}, False),
        ({"size": 1}, False),
    ],
)
def test_only_a_fingerprint_that_would_change_with_the_file_is_trusted(found: dict[str, Any], trusted: bool) -> None:
    assert (remotes._fingerprint(found, OLD + 1) is not None) is trusted


class TestContent:
    """What a worker reads that has neither table nor store."""

    def of(self, root: str, name: str) -> bytes:
        return remotes.Remote(Data(source="table", path=Path("none"), remote=root)).content(name)

    def test_it_is_a_files_bytes_and_nothing_else_is_read(self, server: ThreadingHTTPServer) -> None:
        lay_out({"cat/a b#1?.png": b"odd", "cat/0.png": b""})
        assert self.of(root_of(server), "cat/3.png") == b"cat 3"
        assert self.of(root_of(server), "cat/a b#1?.png") == b"odd"
        assert self.of(root_of(server), "cat/0.png") == b""
        assert {path.partition("?")[0] for path in Quiet.asked} <= {"/cat/3.png", "/cat/a%20b%231%3F.png", "/cat/0.png"}
        assert not store.present()

    @pytest.mark.parametrize("scheme", ["file", "memory"])
    def test_it_comes_from_any_file_system(self, scheme: str) -> None:
        folder = lay_out(CATS_AND_DOGS)
        fsspec.filesystem("memory").pipe(f"{folder}/cat/3.png", b"cat 3")
        assert self.of(f"{scheme}://{folder}", "cat/3.png") == b"cat 3"

    def test_a_missing_file_is_named(self, server: ThreadingHTTPServer) -> None:
        with pytest.raises(InputError, match=f"^{root_of(server)}/cat/gone.png: (cannot be read|no such)"):
            self.of(root_of(server), "cat/gone.png")

    def test_a_file_too_large_for_an_image_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remotes, "MOST_BYTES", 4)
        with pytest.raises(InputError, match="cat/3.png: .*(more than|at most) 4"):
            self.of(f"file://{lay_out(CATS_AND_DOGS)}", "cat/3.png")

    def test_several_are_read_at_once(self, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        both, real = threading.Barrier(2), Quiet.do_GET

        def meet(self: Quiet) -> None:
            both.wait(3)
            real(self)

        monkeypatch.setattr(Quiet, "do_GET", meet)
        remote = remotes.Remote(Data(source="table", path=Path("none"), remote=root_of(server)))
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(remote.content, ["cat/1.png", "cat/2.png"])) == [b"cat 1", b"cat 2"]
