"""The doctor reports at once everything that would stop a run."""

import os
import socket
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import doctor
from pipeline.repair import leftovers
from tests.commands.doctor.repository import GOOD, LOCK, RWLOCK, Said, files
from tests.conftest import Project


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


def test_an_engine_that_does_not_run_is_one_line(project: Project, capsys: Said) -> None:
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

    def test_each_wrong_version_is_a_line_with_the_command_that_mends_it(self, capsys: Said) -> None:
        self.require("numpy>=2.0", "pillow<5", "absent>=1; extra == 'more'")
        assert main(["doctor"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("headswap doctor: pillow: got version ")
        assert line.endswith("expected <5: pip install 'pillow<5'")

    def test_without_a_package_no_check_that_may_need_it_begins(self, capsys: Said) -> None:
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
