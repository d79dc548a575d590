"""The doctor recognises what a killed run leaves, and mends it without losing a row."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import doctor
from pipeline.core import processes
from pipeline.repair import leftovers
from pipeline.stages import embed, prepare
from tests.conftest import Project

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
GOOD = b"""schema: '2.0'
stages:
  prepare:
    cmd: headswap prepare
    outs:
    - path: data/manifest.json
      hash: md5
      md5: ba5f1736a499f29146ab1de5980161e8
      size: 100
"""
CUT = GOOD[: GOOD.index(b" 100")]
UNUSABLE = {
    "empty": b"\n",
    "cut short in a name": GOOD[:-90],
    "cut short in a way that is YAML": CUT,
    "of another shape": b"a: 1\n",
    "only zeros": bytes(100),
    "no schema": GOOD.partition(b"\n")[2],
}
Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    git("init", "--quiet")
    RWLOCK.parent.mkdir(parents=True)
    return project


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)


def commit_lock(content: bytes) -> None:
    LOCK.write_bytes(content)
    git("add", str(LOCK))
    git("commit", "--quiet", "-m", "lock")


def files() -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] not in (".git", ".dvc")
    }


def test_a_sound_project_passes_and_nothing_is_written(capsys: Said) -> None:
    LOCK.write_bytes(GOOD)
    before = files()
    assert main(["doctor"]) == 0
    assert "weights are in order; 2 runs to compare" in capsys.readouterr().out
    assert files() == before
    assert main(["doctor", "--fix"]) == 0
    assert LOCK.read_bytes() == GOOD


def test_everything_wrong_is_reported_at_once(project: Project, capsys: Said) -> None:
    project.write(heads={"logreg": {"CC": 1}}, data={"path": "nowhere"})
    RWLOCK.touch()
    assert main(["doctor"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_an_engine_that_nobody_runs_is_a_line(project: Project, capsys: Said) -> None:
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    project.write(embed={"engine": {"backend": "dask", "address": address}})
    assert main(["doctor"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"embed.engine: dask at {address}: nothing answers" in line


def test_without_its_tools_and_repositories_it_says_what_to_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    leftovers.DVC.rename("moved")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in ("git: not on PATH", "dvc: not on PATH", "headswap: not on PATH", "dvc init"))


class TestLock:
    @pytest.mark.parametrize("kind", list(UNUSABLE))
    def test_an_unusable_one_becomes_that_of_the_last_commit(self, kind: str, capsys: Said) -> None:
        commit_lock(GOOD)
        LOCK.write_bytes(UNUSABLE[kind])
        assert main(["doctor"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("headswap doctor: dvc.lock: ")
        assert "to mend it: headswap doctor --fix" in error
        assert LOCK.read_bytes() == UNUSABLE[kind]
        assert main(["doctor", "--fix"]) == 0
        assert "mended: dvc.lock: was" in capsys.readouterr().out
        assert LOCK.read_bytes() == GOOD
        assert main(["doctor"]) == 0

    def test_without_a_sound_one_in_git_it_is_removed(self) -> None:
        commit_lock(CUT)
        assert main(["doctor", "--fix"]) == 0
        assert not LOCK.exists()

    def test_one_that_was_lost_is_brought_back(self, capsys: Said) -> None:
        commit_lock(GOOD)
        LOCK.unlink()
        assert main(["doctor"]) == 2
        assert "dvc.lock: missing, although the last commit has one; to mend it: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert LOCK.read_bytes() == GOOD

    @pytest.mark.parametrize("left", [None, b""])
    def test_one_that_was_removed_as_documented_does_not_come_back(self, left: bytes | None) -> None:
        commit_lock(GOOD)
        git("rm", "--quiet", "-r", str(LOCK))
        if left is not None:  # by a first run that was killed
            LOCK.write_bytes(left)
        assert main(["doctor"]) == (0 if left is None else 2)
        assert main(["doctor", "--fix"]) == 0
        assert not LOCK.exists()

    def test_a_merge_conflict_is_somebodys_to_resolve(self, capsys: Said) -> None:
        commit_lock(GOOD)
        conflict = b"<<<<<<< HEAD\n" + GOOD + b"=======\n>>>>>>> other\n"
        LOCK.write_bytes(conflict)
        for arguments in (["doctor"], ["doctor", "--fix"]):
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert (
                "dvc.lock: holds a merge conflict; resolve it by hand, or take one side: `git checkout --ours" in line
            )
            assert "--fix" not in line
            assert LOCK.read_bytes() == conflict

    def test_one_that_can_be_read_is_never_touched(self) -> None:
        commit_lock(b"schema: '2.0'\n")
        LOCK.write_bytes(GOOD)
        assert main(["doctor", "--fix"]) == 0
        assert LOCK.read_bytes() == GOOD


class TestListOfReadersAndWriters:
    """DVC's rwlock."""

    @staticmethod
    def write(pid: int) -> None:
        RWLOCK.write_text(json.dumps({"read": {"data": [{"pid": pid, "cmd": "dvc repro"}]}}))

    @pytest.fixture
    def living(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process that no command line tells to be DVC."""
        with subprocess.Popen(["sleep", "600"]) as process:
            yield process
            process.kill()

    @pytest.mark.parametrize("content", ["", '{"write": {', "[]", '{"write": {"data": 1}}'])
    def test_what_stops_dvc_is_removed(self, content: str, capsys: Said) -> None:
        RWLOCK.write_text(content)
        assert main(["doctor"]) == 2
        assert ".dvc/tmp/rwlock: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_an_id_that_went_to_another_process_is_removed(self, living: subprocess.Popen[bytes], capsys: Said) -> None:
        self.write(living.pid)
        os.utime(RWLOCK, (0, 0))
        assert main(["doctor"]) == 2
        assert f".dvc/tmp/rwlock: names process {living.pid}, which did not write there" in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_whoever_may_have_written_it_is_named_and_goes_on(
        self, living: subprocess.Popen[bytes], capsys: Said
    ) -> None:
        self.write(living.pid)
        assert main(["doctor", "--fix"]) == 0
        assert f"at work: process {living.pid} (`sleep 600`, since " in capsys.readouterr().out
        assert RWLOCK.exists()

    def test_a_process_that_ended_unnoticed_is_no_reader(self, living: subprocess.Popen[bytes]) -> None:
        self.write(living.pid)
        living.kill()
        os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_one_that_names_only_the_dead_is_left_to_dvc(self) -> None:
        dead = subprocess.Popen(["true"])
        dead.wait()
        RWLOCK.write_text(json.dumps({"write": {"data": {"pid": dead.pid, "cmd": "dvc repro"}}}))
        assert main(["doctor"]) == 0


class TestTemporaryFiles:
    OURS, DVCS = f".a.h5.{'0' * 32}.tmp", ".Zm9vYmFyYmF6cXV4cXV1eA.tmp"

    @staticmethod
    def write(*paths: str) -> list[Path]:
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
        return [Path(path) for path in paths]

    def test_those_of_killed_runs_go_and_all_else_stays(self, project: Project, capsys: Said) -> None:
        prepare.main(project.write())
        embed.main(project.write(), "tiny")
        before = files()
        gone = self.write(
            f"data/embeddings/{self.OURS}", f".headswap/embeddings/{'a' * 64}/{self.OURS}", f"models/tiny/{self.OURS}",
            f".dvc/cache/files/md5/ab/{self.DVCS}", f".dvc/cache/runs/ab/abc/{self.DVCS}",
        )  # fmt: skip
        theirs = self.write(
            f"data/raw/red/{self.OURS}", "data/.mine.tmp", f"docs/{self.OURS}", f"models/tiny/{self.DVCS}",
            f".dvc/cache/files/md5/ab/{self.OURS}",
        )  # fmt: skip
        assert main(["doctor"]) == 2
        assert "5 temporary files that were never finished: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in theirs)
        assert before.items() <= files().items()

    def test_the_data_folder_is_the_users_however_it_is_written(self, project: Project) -> None:
        (theirs,) = self.write(f"data/raw/red/{self.OURS}")
        project.write(data={"path": str(project.root / "data/../data/raw")})
        assert main(["doctor", "--fix"]) == 0
        assert theirs.exists()

    def test_while_any_command_is_at_work_only_old_ones_go(self, capsys: Said) -> None:
        (new,) = self.write(f"data/embeddings/{self.OURS}")
        command = subprocess.Popen([write_stand_in(), "cache", "--merge"])
        try:
            while not processes.commands():
                time.sleep(0.05)
            assert main(["doctor", "--fix"]) == 0
            assert f"at work: process {command.pid} (`headswap cache --merge`, since " in capsys.readouterr().out
            assert new.exists()
        finally:
            command.kill()
            command.wait()
        assert main(["doctor", "--fix"]) == 0
        assert not new.exists()

    def test_in_a_shared_cache_only_old_ones_go(
        self, project: Project, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        shared = tmp_path_factory.mktemp("shared")
        project.write(embed={"cache": str(shared)})
        old, new = self.write(str(shared / self.OURS), str(shared / f".b.h5.{'1' * 32}.tmp"))
        os.utime(old, (0, 0))
        assert main(["doctor", "--fix"]) == 0
        assert (old.exists(), new.exists()) == (False, True)


class TestVersions:
    @pytest.fixture(autouse=True)
    def _package(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        """Install a package with requirements of its own in the place of this one."""
        installed = tmp_path_factory.mktemp("installed")
        (installed / "stand_in-1.dist-info").mkdir()
        self.metadata = installed / "stand_in-1.dist-info/METADATA"
        monkeypatch.syspath_prepend(str(installed))
        monkeypatch.setattr(doctor, "PACKAGE", "stand-in")
        monkeypatch.setenv("PATH", f"{installed}{os.pathsep}{os.environ['PATH']}")
        (installed / "stand-in").write_text("")
        (installed / "stand-in").chmod(0o755)

    def require(self, *requirements: str) -> None:
        lines = ["Metadata-Version: 2.1", "Name: stand-in", "Version: 1"]
        self.metadata.write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requirements)]) + "\n")

    def test_each_wrong_one_is_a_line_with_the_command_that_mends_it(self, capsys: Said) -> None:
        self.require("numpy>=2.0", "pillow<5", "absent>=1; extra == 'more'")
        assert main(["doctor"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("headswap doctor: pillow: got version ")
        assert line.endswith("expected <5: pip install 'pillow<5'")

    def test_without_one_nothing_that_may_need_it_is_begun(self, capsys: Said) -> None:
        self.require("numpy>=2.0", "not-installed-anywhere>=1")
        assert main(["doctor"]) == 2
        expected = "not-installed-anywhere: not installed: pip install 'not-installed-anywhere>=1'"
        assert capsys.readouterr().err == f"headswap doctor: {expected}\n"


@pytest.mark.parametrize(("name", "content"), [(".dvc/config", b"[core"), (".dvcignore", b"\xff")])
def test_settings_that_dvc_cannot_read_are_one_line(name: str, content: bytes, capsys: Said) -> None:
    Path(name).write_bytes(content)
    assert main(["doctor"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headswap doctor: .dvc: DVC cannot open this repository (")


def write_stand_in() -> Path:
    """Write a `headswap` that takes for ever."""
    stand_in = Path("bin/headswap").absolute()
    stand_in.parent.mkdir()
    stand_in.write_text("#!/usr/bin/env python3\nimport time\ntime.sleep(600)\n")
    stand_in.chmod(0o755)
    return stand_in


@pytest.fixture
def at_work() -> Iterator[subprocess.Popen[bytes]]:
    """Start a real `dvc repro` whose `headswap embed` takes for ever."""
    stand_in = write_stand_in()
    Path("dvc.yaml").write_text("stages:\n  embed:\n    cmd: headswap embed --backbone tiny\n")
    environment = {**os.environ, "PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
    dvc = subprocess.Popen(["dvc", "repro", "--quiet"], env=environment, start_new_session=True)
    while not processes.stages():
        assert dvc.poll() is None
        time.sleep(0.05)
    yield dvc
    for process in (dvc, *(one.process for one in processes.stages())):
        process.kill()
    dvc.wait()


def test_a_stage_whose_dvc_was_killed_is_ended_and_a_living_dvc_is_left_alone(
    at_work: subprocess.Popen[bytes], capsys: Said
) -> None:
    LOCK.touch()  # as if it were just being written
    assert main(["doctor"]) == 0
    assert f"at work: process {at_work.pid} (`dvc repro --quiet`, since " in capsys.readouterr().out
    assert main(["doctor", "--fix"]) == 2
    assert "DVC is at work, so nothing was mended" in capsys.readouterr().err

    at_work.kill()
    at_work.wait()
    (stage,) = processes.stages()
    assert stage.orphan
    LOCK.unlink()
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert f"process {stage.process.pid} (`headswap embed --backbone tiny`, since " in error
    assert "runs on although the `dvc repro` that started it is gone" in error
    assert main(["doctor", "--fix"]) == 0
    assert "ended; what it had finished is kept" in capsys.readouterr().out
    assert processes.stages() == []


def test_a_stage_started_by_hand_is_named_and_goes_on(capsys: Said) -> None:
    by_hand = subprocess.Popen([write_stand_in(), "train", "--backbone", "tiny", "--head", "knn"])
    try:
        while not processes.stages():
            time.sleep(0.05)
        assert main(["doctor", "--fix"]) == 0
        assert f"at work: process {by_hand.pid} (`headswap train " in capsys.readouterr().out
        assert by_hand.poll() is None
    finally:
        by_hand.kill()
        by_hand.wait()


def test_a_temporary_file_that_its_writer_renames_meanwhile_is_no_finding(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Path(f"data/.manifest.parquet.{'0' * 32}.tmp")
    half.touch()
    real = os.walk

    def walk(folder: Path, **settings: bool) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in list(real(folder, **settings)):
            half.unlink(missing_ok=True)
            yield found

    monkeypatch.setattr(os, "walk", walk)
    assert list(leftovers._temporaries(project.write())) == []
    assert "0.0 MB: removed" in leftovers._remove_all([half])
