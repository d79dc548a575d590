"""Every altered byte in the chain is found."""

import os
from pathlib import Path

import pytest

from pipeline.commands import audit
from pipeline.core import stamps
from pipeline.core.errors import CheckFailed, InputError, StateError
from pipeline.embeddings import matrix
from pipeline.stages import lineage
from tests.conftest import Project


class TestAudit:
    def test_a_project_without_dvc_is_compared_with_the_recorded_chain(self, finished: Project) -> None:
        assert ": nothing was altered" in audit.main(finished.write())
        altered = ["data/raw/blue/01.png", "metrics/tiny/last.json", "reports/index.html", "tiny.pth"]
        for path in altered:
            Path(path).write_bytes(Path(path).read_bytes()[:-1])
        with pytest.raises(CheckFailed) as caught:
            audit.main(finished.write())
        assert [finding.split(":")[0] for finding in caught.value.problems[:-1]] == altered
        assert "no dvc.lock to check against" in caught.value.printed

    def test_an_altered_cost_is_found(self, finished: Project) -> None:
        cost = matrix.cost_path("tiny")
        cost.write_text(cost.read_text().replace("36", "35"))
        with pytest.raises(StateError, match=r"tiny.cost.json: expected sha256"):
            lineage.main(finished.write())
        with pytest.raises(CheckFailed, match=r"tiny.cost.json: expected sha256"):
            audit.main(finished.write())

    def test_a_pipe_in_place_of_an_image_is_a_finding_and_does_not_hang(self, finished: Project) -> None:
        Path("data/raw/red/03.png").unlink()
        os.mkfifo("data/raw/red/03.png")
        with pytest.raises(CheckFailed, match="red/03.png: expected sha256 .* found no readable file"):
            audit.main(finished.write())

    @pytest.mark.parametrize("locator", ["package:evil.sub/x", "package:evil/../../x"])
    def test_a_locator_runs_no_code_and_stays_in_its_package(
        self, project: Project, locator: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("evil/sub").mkdir(parents=True)
        Path("evil/__init__.py").write_text("open('executed', 'w')")
        monkeypatch.syspath_prepend(str(project.root))
        with pytest.raises(InputError, match="expected package:<top-level package>"):
            stamps.locate(locator)
        assert not Path("executed").exists()

    def test_without_a_record_it_says_what_to_run(self, project: Project) -> None:
        with pytest.raises(StateError, match="run `dvc repro`"):
            audit.main(project.write())
