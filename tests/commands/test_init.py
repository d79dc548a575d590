"""init: what is recognised, what is written, and what is refused with nothing written."""

import csv
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.commands import init
from pipeline.core import params
from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.core.stamps import sha256_file
from pipeline.data import exclusions
from pipeline.data.manifest import stored_path
from pipeline.stages import prepare
from tests.conftest import CLASSES, Project, write_image


def written() -> Params:
    return params.load()


def move(root: Path, target: str, shape: str) -> Path:
    """Put the project's images somewhere else, in one of the shapes that people have."""
    folder = root / target
    for number, path in enumerate(sorted((root / "data/raw").rglob("*.png"))):
        label, split = path.parent.name, ("train", "train", "val", "test")[number % 4]
        name = {"classes": f"{label}/{path.name}", "splits": f"{split}/{label}/{path.name}",
                "table": f"images/{label}-{path.name}", "nested": f"photos/{label}/{path.name}"}[shape]  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / name)
        if shape == "table":
            new = not (folder / "annotations.csv").exists()
            with (folder / "annotations.csv").open("a", newline="") as stream:
                csv.writer(stream).writerows(
                    [*([("Filename", "Class", "Patient")] if new else []), (name, label, number // 2)]
                )
    return folder


@pytest.mark.parametrize(
    ("shape", "source", "path", "method"),
    [
        ("classes", "image_folder", "mine", "stratified"),
        ("splits", "split_folders", "mine", "predefined"),
        ("table", "table", "mine", "stratified"),
        ("nested", "image_folder", "mine/photos", "stratified"),
    ],
)
def test_a_folder_is_recognised_by_its_shape_and_prepare_can_read_it(
    project: Project, shape: str, source: str, path: str, method: str
) -> None:
    move(project.root, "mine", shape)
    said = init.main(params.load(), data="mine", yes=True)
    assert "ms per image here" in said
    now = written()
    assert (now.data.source, now.data.path, now.split.method) == (source, Path(path), method)
    assert "36 images" in prepare.main(now.model_copy(update={"seed": 3}))


def test_small_sets_are_described_in_units_that_suit_them(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    said = init.main(params.load(), data="data/raw", yes=True)
    shown = capsys.readouterr().out
    assert re.search(r"^36 images, \d\d+ kB, 3 classes$", shown, re.MULTILINE)
    assert re.search(r"^shorter side: 32 pixels$", shown, re.MULTILINE)
    assert re.search(
        r"over 36 images will take about \d+ s, and is needed only once \(\d+ ms per image here, timed on 32, after",
        said,
    )


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_an_archive_is_used_as_it_is(project: Project, suffix: str) -> None:
    path = Path(f"photos.{suffix}")
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for image in project.images:
                archive.write(image, f"photos/{image.relative_to(project.root / 'data/raw')}")
    else:
        with tarfile.open(path, f"w:{suffix.partition('.')[2]}") as archive:
            archive.add("data/raw", "photos")
    init.main(params.load(), data=str(path), yes=True)
    now = written()
    assert (now.data.source, now.data.path) == ("image_folder", path)
    assert "36 images" in prepare.main(now)


def test_excluded_images_are_neither_counted_nor_stored(project: Project) -> None:
    gone = sha256_file(project.images[0])
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for image in project.images:
            archive.write(image, image.relative_to(project.root / "data/raw"))
    exclusions.add([gone], exclusions.FORGOTTEN)
    init.main(params.load(), data="photos.zip", yes=True)
    assert not Path(stored_path(gone)).exists()
    assert "35 images" in prepare.main(written())


def test_a_folder_outside_the_project_is_written_as_an_absolute_path(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    for name in CLASSES:
        for number in range(8):
            write_image(outside / name / f"{number}.png", name, number)
    init.main(params.load(), data=str(outside), yes=True)
    assert written().data.path == outside
    assert "24 images" in prepare.main(written())


def test_the_other_sections_of_params_stay(project: Project) -> None:
    before = YAML(typ="safe").load(Path("params.yaml"))
    init.main(params.load(), data="data/raw", yes=True)
    after = YAML(typ="safe").load(Path("params.yaml"))
    for name in before.keys() - {"data", "split", "run"}:
        assert after[name] == before[name]
    assert init.main(params.load(), data="data/raw", yes=False).startswith("params.yaml: says all that already")


def test_without_a_yes_nothing_is_written(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(InputError, match="add --yes"):
        init.main(params.load(), data="data/raw")
    assert Path("params.yaml").read_bytes() == before
    assert not list(Path().glob(".params*"))
    shown = capsys.readouterr().out
    assert "36 images" in shown
    assert "+  method: stratified" in shown


def test_it_loads_no_torch_before_the_answer(project: Project) -> None:
    script = "import os, sys, pipeline.cli as cli; status = cli.main(['init', '--data', 'data/raw']); "
    script += "os._exit(1 if 'torch' in sys.modules else status)"
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr


def images(*names: str) -> None:
    for number, name in enumerate(names):
        write_image(Path("mine", name), "red", number)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("data/rwa", "did you mean 'data/raw'?"),
        ("q/z", "a relative path starts in"),
        ("", "`headswap init --help` says"),
    ],
)
def test_a_path_where_nothing_lies_has_a_next_step(project: Project, data: str, said: str) -> None:
    with pytest.raises(InputError, match="no such file or folder; ") as caught:
        init.main(params.load(), data=data, yes=True)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: None, "no such file or folder"),
        (lambda: Path("mine").mkdir(), "got 0 images"),
        (lambda: images("a.png"), "lie directly in it"),
        (lambda: images(*(f"{name}/1.png" for name in ("cat", "dog"))), "expected at least 1 in each"),
        (lambda: images("Cat/1.png", "cat/2.png"), "expected one spelling of one class"),
        (lambda: images("a.png", "cat/b.png"), "beside the class folders"),
        (lambda: images(*(f"cat/{n}.png" for n in range(9))), "got 1 class"),
        (lambda: images("train/cat/1.png", "cat/1.png"), "look like splits"),
        (lambda: (Path("mine").mkdir(), Path("mine/a.csv").write_text("x,y\n1,2\n")), "expected one for the path"),
    ],
)  # fmt: skip
def test_unusable_data_is_reported_and_params_stay(project: Project, make: object, said: str) -> None:
    make()  # type: ignore[operator]
    before = Path("params.yaml").read_bytes()
    with pytest.raises(InputError, match=said):
        init.main(params.load(), data="mine", yes=True)
    assert Path("params.yaml").read_bytes() == before


@pytest.fixture
def server(project: Project) -> Iterator[str]:
    """Serve the project's images on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(project.root / "data/raw"))) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["http", "file"])
def test_what_lies_under_a_url_is_listed_into_a_table(project: Project, server: str, kind: str) -> None:
    url = server if kind == "http" else f"file://{project.root}/data/raw"
    init.main(params.load(), data=url, yes=True)
    now = written()
    assert (now.data.source, now.data.remote) == ("table", url)
    assert (now.data.path / "labels.csv").read_text().startswith("path,label\nblue/00.png,blue\n")
    assert "36 images" in prepare.main(now)


def test_a_remote_table_is_fetched_into_a_folder_of_its_own(project: Project, server: str) -> None:
    names = [path.relative_to(project.root / "data/raw").as_posix() for path in project.images]
    Path("data/raw/list.csv").write_text("file,class\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    init.main(params.load(), data=f"{server}/list.csv", yes=True)
    assert (written().data.path.name[:5], written().data.remote) == ("list-", server)
    assert written().data.columns.label == "class"
    assert "36 images" in prepare.main(written())


def test_a_host_that_does_not_answer_is_one_line_and_nothing_is_written(project: Project) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/photos: cannot be read"):
        init.main(params.load(), data="http://127.0.0.1:9/photos", yes=True)
    assert Path("params.yaml").read_bytes() == before
    assert not Path("data/raw/photos").exists()


@pytest.mark.parametrize("url", ["http://", "a b://x", "://x", "zip://x.zip::http://127.0.0.1:9/x"])
def test_a_malformed_url_is_one_line(project: Project, url: str) -> None:
    with pytest.raises(InputError, match="expected a URL"):
        init.main(params.load(), data=url, yes=True)


def test_line_ends_mode_and_links_of_params_stay(project: Project) -> None:
    path = Path("params.yaml")
    path.rename("real.yaml")
    path.symlink_to("real.yaml")
    Path("real.yaml").write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    Path("real.yaml").chmod(0o600)
    init.main(params.load(), data="data/raw", yes=True)
    assert path.is_symlink()
    assert Path("real.yaml").stat().st_mode & 0o777 == 0o600
    content = Path("real.yaml").read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n")
    Path("real.yaml").chmod(0o444)
    before = Path("real.yaml").read_bytes()
    move(project.root, "mine", "classes")
    with pytest.raises(InputError, match="read-only"):
        init.main(params.load(), data="mine", yes=True)
    assert Path("real.yaml").read_bytes() == before


def test_an_edit_made_while_it_asks_is_not_lost(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(question: str) -> str:
        with Path("params.yaml").open("a") as stream:
            stream.write("# mine\n")
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", edit)
    with pytest.raises(InputError, match="changed meanwhile"):
        init.main(params.load(), data="data/raw")
    assert Path("params.yaml").read_text().endswith("# mine\n")


@pytest.mark.parametrize("answer", ["n", "", EOFError()])
def test_anything_but_yes_writes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, answer: str | EOFError
) -> None:
    def reply(question: str) -> str:
        if isinstance(answer, EOFError):
            raise answer
        return answer

    before = Path("params.yaml").read_bytes()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", reply)
    with pytest.raises(InputError, match="not written"):
        init.main(params.load(), data="data/raw")
    assert Path("params.yaml").read_bytes() == before


def test_a_tables_name_cannot_write_settings(project: Project) -> None:
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr("x\n  remote: file:///\n  #.csv", "path,label\na.png,a\n")
    with pytest.raises(InputError, match="not printable"):
        init.main(params.load(), data="evil.zip", yes=True)


@pytest.mark.parametrize("answer", ["y", "Yes", " YES "])
def test_a_yes_in_any_case_writes_the_file(project: Project, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    before = Path("params.yaml").read_bytes()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    init.main(params.load(), data="data/raw")
    assert Path("params.yaml").read_bytes() != before
