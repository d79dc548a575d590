"""The doctor reports at once everything that would stop a run."""

import os
import socket
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import doctor
from pipeline.networks import backbones
from pipeline.repair import leftovers
from tests.commands.doctor.repository import GOOD, LOCK, RWLOCK, Said, files
from tests.conftest import Project


def test_a_sound_project_passes_and_nothing_is_written_but_what_was_in_order(capsys: Said) -> None:
    LOCK.write_bytes(GOOD)
    before = files()
    assert main(["doctor"]) == 0
    assert "weights are in order; 2 runs to compare" in capsys.readouterr().out
    assert files() == before | {doctor.IN_ORDER: doctor.IN_ORDER.read_bytes()}
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


class TestInOrderBefore:
    @pytest.fixture(autouse=True)
    def _checked(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """Check a project, and count the networks that are loaded from then on."""
        self.project, self.loaded = project, list[str]()
        assert main(["doctor"]) == 0
        load = backbones.load
        monkeypatch.setattr(backbones, "load", lambda name, entry: (self.loaded.append(name), load(name, entry))[1])

    def test_what_was_in_order_is_not_loaded_again(self) -> None:
        assert main(["doctor"]) == 0
        assert self.loaded == []

    def test_other_settings_are_checked(self, capsys: Said) -> None:
        self.project.write(heads={"logreg": {"CC": 1}})
        assert main(["doctor"]) == 2
        assert "heads.logreg" in capsys.readouterr().err
        assert self.loaded == ["tiny"]

    def test_other_weights_are_checked(self, capsys: Said) -> None:
        Path("tiny.pth").write_bytes(b"altered")
        for _ in range(2):  # what is wrong is said again
            assert main(["doctor"]) == 2
            assert "tiny.pth: weights: sha256" in capsys.readouterr().err

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"asked": 1, "weights": []}'])
    def test_a_malformed_memory_is_not_believed(self, content: str) -> None:
        doctor.IN_ORDER.write_text(content)
        assert main(["doctor"]) == 0
        assert self.loaded == ["tiny"]


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
