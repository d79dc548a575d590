"""The doctor mends DVC's lock, and DVC's list of readers and writers."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from pipeline.cli import main
from tests.commands.doctor.repository import CUT, GOOD, LOCK, RWLOCK, UNUSABLE, Said, commit_lock, git


class TestLock:
    @pytest.mark.parametrize("kind", list(UNUSABLE))
    def test_an_unusable_lock_is_replaced_by_the_last_commits(self, kind: str, capsys: Said) -> None:
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

    def test_a_lock_without_a_usable_one_in_git_is_removed(self) -> None:
        commit_lock(CUT)
        assert main(["doctor", "--fix"]) == 0
        assert not LOCK.exists()

    def test_a_lost_lock_is_restored(self, capsys: Said) -> None:
        commit_lock(GOOD)
        LOCK.unlink()
        assert main(["doctor"]) == 2
        assert "dvc.lock: missing, although the last commit has one; to mend it: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert LOCK.read_bytes() == GOOD

    @pytest.mark.parametrize("left", [None, b""])
    def test_a_lock_that_was_removed_from_git_is_not_restored(self, left: bytes | None) -> None:
        commit_lock(GOOD)
        git("rm", "--quiet", "-r", str(LOCK))
        if left is not None:  # by a first run that was killed
            LOCK.write_bytes(left)
        assert main(["doctor"]) == (0 if left is None else 2)
        assert main(["doctor", "--fix"]) == 0
        assert not LOCK.exists()

    def test_a_merge_conflict_is_left_to_a_person(self, capsys: Said) -> None:
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

    def test_a_readable_lock_is_never_touched(self) -> None:
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
    def test_a_list_that_stops_dvc_is_removed(self, content: str, capsys: Said) -> None:
        RWLOCK.write_text(content)
        assert main(["doctor"]) == 2
        assert ".dvc/tmp/rwlock: " in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_a_list_with_a_reused_process_id_is_removed(self, living: subprocess.Popen[bytes], capsys: Said) -> None:
        self.write(living.pid)
        os.utime(RWLOCK, (0, 0))
        assert main(["doctor"]) == 2
        assert f".dvc/tmp/rwlock: names process {living.pid}, which did not write it" in capsys.readouterr().err
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_a_live_process_that_may_have_written_the_list_is_left_alone(
        self, living: subprocess.Popen[bytes], capsys: Said
    ) -> None:
        self.write(living.pid)
        assert main(["doctor", "--fix"]) == 0
        assert f"at work: process {living.pid} (`sleep 600`, since " in capsys.readouterr().out
        assert RWLOCK.exists()

    def test_a_zombie_is_no_reader(self, living: subprocess.Popen[bytes]) -> None:
        self.write(living.pid)
        living.kill()
        os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
        assert main(["doctor", "--fix"]) == 0
        assert not RWLOCK.exists()

    def test_a_list_of_ended_processes_is_left_to_dvc(self) -> None:
        dead = subprocess.Popen(["true"])
        dead.wait()
        RWLOCK.write_text(json.dumps({"write": {"data": {"pid": dead.pid, "cmd": "dvc repro"}}}))
        assert main(["doctor"]) == 0
