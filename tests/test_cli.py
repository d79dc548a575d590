"""What a user sees: help, one clear line for bad input, exit status."""

import fcntl
import importlib
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.commands import demo
from pipeline.core.errors import CheckFailed, InputError
from pipeline.core.verbs import VERBS, file_of
from pipeline.data.sources.memo import MEMO
from tests.conftest import REPOSITORY, Project
from tests.soak import soak


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_sub_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    described = importlib.import_module(f"pipeline.{file_of(verb).parent.name}.{verb}").HELP
    assert " ".join(described.split()) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("given", ["--help", "trian"])
def test_help_and_the_answer_to_a_typo_load_nothing_that_takes_long(given: str) -> None:
    script = f"""
import sys, pipeline.cli
try:
    pipeline.cli.main([{given!r}])
finally:
    heavy = {{"torch", "sklearn", "pandas", "pyarrow", "h5py", "dvc", "numpy", "pydantic"}} & set(sys.modules)
    print("loaded:", *sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stdout + done.stderr


def test_a_typo_is_one_line_with_the_nearest_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "--backbone", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headswap: command: got 'trian', expected one of: ")
    assert line.endswith("; did you mean 'train'?")


def test_a_stage_ends_with_one_summary_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare"]) == 0
    assert capsys.readouterr().out == "prepare: 36 images, 36 distinct, 3 classes: 18 train, 6 val, 12 test\n"


def test_it_is_quiet_when_not_on_a_terminal(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["prepare"],
        ["embed", "--backbone", "tiny"],
        ["train", "--backbone", "tiny", "--head", "logreg"],
    ):
        assert main(arguments) == 0
    assert capsys.readouterr().err == ""


def test_on_a_terminal_long_work_shows_a_bar(project: Project) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pipeline", "prepare"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    assert "36/36" in os.read(ours, 10_000).decode()
    os.close(ours)


BAD: list[tuple[dict[str, Any], list[str], str]] = [
    ({"embed": {"batchsize": 1}}, ["prepare"], "did you mean 'batch_size'?"),
    ({"data": {"path": "nowhere"}}, ["prepare"], "nowhere: no such folder"),
    ({"data": {"source": "image_foldr"}}, ["prepare"], "did you mean 'image_folder'?"),
    ({"split": {"val": 0.01}}, ["prepare"], "class 'blue': got 12 images"),
    ({}, ["embed", "--backbone", "tinny"], "did you mean 'tiny'?"),
    ({}, ["train", "--backbone", "tiny", "--head", "logrg"], "did you mean 'logreg'?"),
    ({}, ["train", "--backbone", "tiny", "--head", "logreg"], "data/manifest.json: cannot be read"),
    ({}, ["finetune", "--backbone", "tiny", "--plan", "lst"], "did you mean 'last'?"),
    (
        {"backbones": {"tiny": {"weights": "tiny.pth", "sha256": "e" * 64}}},
        ["doctor"],
        "tiny.pth: weights: sha256: got",
    ),
    ({"heads": {"logreg": {"CC": 1}}}, ["doctor"], "heads.logreg: unknown key: got 'CC'"),
    (
        {"plans": {"last": {"unfreeze_from": "blok"}}},
        ["doctor"],
        "got 'blok', expected one of: classifier, first, second",
    ),
    ({"data": {"path": "data/raw/red"}}, ["prepare"], "not in a class folder; expected <class>/<image>"),
    ({}, ["audit"], "reports/lineage.json: missing, so there is nothing to check against; run `dvc repro`"),
]


def test_wrong_settings_of_heads_are_reported_beside_those_of_other_sections(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError):
        project.write(compare={"bootstrap": "many"}, heads={"near": {"kind": "knn", "n_neighbors": "ten"}})
    assert main(["doctor"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "headswap doctor: params.yaml: compare.bootstrap: got 'many', expected a whole number"
    assert second.startswith("headswap doctor: params.yaml: heads.near.n_neighbors: got 'ten', expected a whole number")


def files_but_the_memo() -> list[Path]:
    """Return what is there, but for the hashes of images, which are worth keeping whatever comes after."""
    return sorted(path for path in Path().rglob("*") if path.is_file() and path != MEMO)


@pytest.mark.parametrize(("sections", "arguments", "expected"), BAD)
def test_bad_input_is_one_clear_line_and_status_2(
    project: Project, capsys: pytest.CaptureFixture[str], sections: dict[str, Any], arguments: list[str], expected: str
) -> None:
    from ruamel.yaml import YAML

    for name, section in sections.items():
        project.content[name] = {**project.content[name], **section}
    with Path("params.yaml").open("w") as stream:
        YAML(typ="safe").dump(project.content, stream)
    before = files_but_the_memo()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert all(line.startswith(f"headswap {arguments[0]}: ") for line in error.splitlines())
    assert "Traceback" not in error
    assert files_but_the_memo() == before


def test_an_unreadable_image_is_one_line_and_leaves_no_matrix(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/raw/red/00.png").write_bytes(b"no image")
    main(["prepare"])
    assert main(["embed", "--backbone", "tiny"]) == 2
    assert "data/raw/red/00.png: not an image" in capsys.readouterr().err
    assert not Path("data/embeddings").exists()


def test_a_full_disk_is_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    assert main(["prepare"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not Path("data/manifest.parquet").exists()


def test_an_interrupt_is_130_and_no_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.stages.prepare.main", interrupt)
    assert main(["prepare"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_problem_is_one_line_and_cannot_steer_the_terminal(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*_: object) -> str:
        raise CheckFailed("a\nheadswap audit: nothing was altered\x1b[2J\udcff: got é")

    monkeypatch.setattr("pipeline.stages.prepare.main", find)
    assert main(["prepare"]) == 1
    assert capsys.readouterr().err == (
        "headswap prepare: a\\nheadswap audit: nothing was altered\\x1b[2J\\udcff: got é\n"
    )


def ended(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a shell does, with a pipe as its output that nobody reads if `UNREAD` is set."""
    ours, theirs = os.pipe()
    os.close(ours)
    unread = environment.pop("UNREAD", "")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=theirs if "stdout" in unread else subprocess.PIPE,
        stderr=theirs if "stderr" in unread else subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    return done


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_name_that_the_terminal_cannot_show_is_escaped(project: Project, environment: dict[str, str]) -> None:
    Path("data/raw/red").rename("data/raw/rød")
    assert main(["prepare"]) == 0
    shown = ended("trace", "rød/00.png", **environment)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert any(name in shown.stdout for name in ("image rød/00.png".encode(), rb"image r\xf8d/00.png"))
    unknown = ended("trace", os.fsdecode(b"\xff\x9b"), **environment)
    assert unknown.returncode == 2
    assert rb"\udcff\udc9b" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "unread", "unbuffered"),
    [
        (["trace", "red/00.png"], "stdout", ""),
        (["--help"], "stdout", "1"),
        (["trace", "nothing"], "stderr", "1"),
        *soak([
            (["trace", "red/00.png"], "stdout", "1"),
            (["forget", "red/00.png"], "stdout", ""),
            (["forget", "red/00.png"], "stdout", "1"),
            (["--help"], "stdout", ""),
            (["trace", "nothing"], "stderr", ""),
        ]),
    ],
)  # fmt: skip
def test_a_reader_that_has_gone_ends_it_quietly(
    project: Project, arguments: list[str], unread: str, unbuffered: str
) -> None:
    main(["prepare"])
    done = ended(*arguments, UNREAD=unread, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 120 or arguments == ["--help"]  # argparse itself passes over what it cannot print
    assert not done.stdout
    assert not done.stderr


def test_without_an_output_it_does_its_work_all_the_same(project: Project) -> None:
    main(["prepare"])
    command = f"{sys.executable} -m pipeline trace red/00.png >&-"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_finding_of_the_audit_is_status_1(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--backbone", "tiny"]
    stages = [
        ["prepare"],
        ["thumbnails"],
        ["embed", *on],
        ["survey", *on],
        ["train", *on, "--head", "logreg"],
        ["finetune", *on, "--plan", "last"],
    ]
    for stage in [*stages, ["curve", *on], ["quality"], ["compare"], ["lineage"]]:
        assert main(stage) == 0
    assert main(["audit"]) == 0
    Path("predictions/tiny/logreg.parquet").write_bytes(b"x")
    assert main(["audit"]) == 1
    assert "predictions/tiny/logreg.parquet: expected sha256" in capsys.readouterr().err


class TestDemo:
    def test_it_lays_out_the_real_images_and_leaves_them_alone_the_second_time(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["demo"]) == 0
        assert len(list(demo.FOLDER.rglob("*.png"))) == 2624
        assert main(["demo"]) == 0
        assert "2624 images are in data/raw/elpv already" in capsys.readouterr().out

    def test_a_half_copied_folder_is_not_taken_for_complete(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import shutil

        real, copied = shutil.copyfile, []

        def interrupted(*paths: Path) -> None:
            copied.append(paths)
            if len(copied) == 50:
                raise KeyboardInterrupt
            real(*paths)

        monkeypatch.setattr(shutil, "copyfile", interrupted)
        assert main(["demo"]) == 130
        assert not demo.FOLDER.exists()
        monkeypatch.setattr(shutil, "copyfile", real)
        assert main(["demo"]) == 0

    def test_without_the_package_the_remedy_is_named(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert main(["demo"]) == 2
        assert "pip install 'headswap[demo]'" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: headswap")
    assert set(VERBS) <= set(done.stdout.split())
