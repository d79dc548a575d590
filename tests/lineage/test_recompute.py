"""Rows computed again, and weights that nothing pins."""

from dataclasses import asdict

import numpy as np
import pytest

from pipeline import cli
from pipeline.core import params, stamps
from pipeline.embeddings import matrix
from pipeline.lineage.audit.audit import audit
from tests.conftest import Project


def test_recomputed_rows_are_the_stored_ones(recorded: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "--recompute", "10"]) == 0
    assert "tiny: 10 rows recomputed: 10 bit for bit, 0 different" in capsys.readouterr().out


def test_rows_that_no_longer_match_the_code_are_found_by_recomputing(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.networks import views

    real = views.pixels
    monkeypatch.setattr(views, "pixels", lambda *given: np.ascontiguousarray(real(*given)[:, ::-1]))
    done = audit(params.load(), recomputed=5)
    assert len(done.findings) == 5
    assert all(finding.place.startswith("data/embeddings/tiny.h5: data/raw/") for finding in done.findings)


def test_a_recipe_that_no_longer_matches_the_code_is_found_by_recomputing(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.networks import frozen_pass

    monkeypatch.setattr(frozen_pass, "CODE_VERSION", frozen_pass.CODE_VERSION + 1)
    (finding,) = audit(params.load(), recomputed=5).findings
    assert finding.place == "data/embeddings/tiny.h5: recipe: code_version"


@pytest.mark.parametrize("arguments", [["--recompute", "-1"], ["--quick", "--recompute", "3"]])
def test_an_invalid_number_to_recompute_is_refused(recorded: Project, arguments: list[str]) -> None:
    assert cli.main(["audit", *arguments]) == 2


@pytest.mark.parametrize(
    ("digits", "said"), [(64, None), (8, "only the first 8 digits of its sha256 pin"), (0, "no sha256 pins")]
)
def test_weights_without_a_full_sha256_are_noted(
    recorded: Project, monkeypatch: pytest.MonkeyPatch, digits: int, said: str | None
) -> None:
    from pipeline.lineage.audit import caveats

    old = stamps.read(matrix.stamp_path("tiny"))
    new = stamps.Stamp(**{**asdict(old), "facts": {**old.facts, "weights_pinned": digits}})
    monkeypatch.setattr(caveats.stamps, "read", lambda path: new if path == matrix.stamp_path("tiny") else old)
    notes = [note for note in caveats.notes(params.load()) if "its weights" in note]
    assert len(notes) == (said is not None)
    assert all(said and said in note for note in notes)
