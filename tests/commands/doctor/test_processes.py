"""The doctor ends orphaned stages, removes temporary files, and leaves running commands alone."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import processes
from pipeline.repair import leftovers
from pipeline.stages import embed, prepare
from tests.commands.doctor.repository import LOCK, Said, files, write_stand_in
from tests.conftest import Project


class TestTemporaryFiles:
    OURS, DVCS = f".a.h5.{'0' * 32}.tmp", ".Zm9vYmFyYmF6cXV4cXV1eA.tmp"

    @staticmethod
    def write(*paths: str) -> list[Path]:
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
        return [Path(path) for path in paths]

    def test_temporary_files_of_killed_runs_are_removed_and_no_others(self, project: Project, capsys: Said) -> None:
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
        assert "5 unfinished temporary files: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in theirs)
        assert before.items() <= files().items()

    def test_no_file_in_the_data_folder_is_removed_however_its_path_is_written(self, project: Project) -> None:
        (theirs,) = self.write(f"data/raw/red/{self.OURS}")
        project.write(data={"path": str(project.root / "data/../data/raw")})
        assert main(["doctor", "--fix"]) == 0
        assert theirs.exists()

    def test_while_a_command_runs_only_old_temporary_files_are_removed(self, capsys: Said) -> None:
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

    def test_in_a_shared_cache_only_old_temporary_files_are_removed(
        self, project: Project, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        shared = tmp_path_factory.mktemp("shared")
        project.write(embed={"cache": str(shared)})
        old, new = self.write(str(shared / self.OURS), str(shared / f".b.h5.{'1' * 32}.tmp"))
        os.utime(old, (0, 0))
        assert main(["doctor", "--fix"]) == 0
        assert (old.exists(), new.exists()) == (False, True)


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


def test_an_orphaned_stage_is_ended_and_a_running_dvc_left_alone(
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
    assert "still runs, although the `dvc repro` that started it is gone" in error
    assert main(["doctor", "--fix"]) == 0
    assert "ended; what it had finished is kept" in capsys.readouterr().out
    assert processes.stages() == []


def test_a_stage_started_by_hand_is_left_alone(capsys: Said) -> None:
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


def test_a_temporary_file_renamed_during_the_search_is_no_finding(
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
