import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import StateError
from pipeline.evaluation import surveys
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability

SCORES = Transferability(2, 2, -0.25, 0.5, 0.5, 1, 0.5)
SURVEY = Survey(["a", "b", "c"], np.array([[0.0, 0.5], [1.0, 0.1234], [0.25, 0.75]]), SCORES)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_written_is_read_back() -> None:
    surveys.write("tiny", SURVEY, {"data/manifest.parquet": "0" * 64})
    found = surveys.read("tiny")
    assert (found.image_id, found.scores) == (SURVEY.image_id, SURVEY.scores)
    np.testing.assert_array_equal(found.position, SURVEY.position)


def test_equal_surveys_are_equal_bytes() -> None:
    surveys.write("one", SURVEY, {})
    surveys.write("two", SURVEY, {})
    assert surveys.path_of("one").read_bytes() == surveys.path_of("two").read_bytes()


def test_altered_bytes_are_refused() -> None:
    surveys.write("tiny", SURVEY, {})
    path = surveys.path_of("tiny")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StateError, match=r"survey/tiny.parquet: sha256: got .* as stamped"):
        surveys.read("tiny")


def test_a_missing_survey_says_what_to_run() -> None:
    with pytest.raises(StateError, match=r"survey/tiny.json: cannot be read .*run `dvc repro`"):
        surveys.read("tiny")


@pytest.mark.parametrize("facts", [{}, {"scores": {"logme": 1.0}}, {"scores": None}])
def test_a_stamp_without_scores_is_refused(facts: object) -> None:
    surveys.write("tiny", SURVEY, {})
    path = surveys.stamp_path("tiny")
    path.write_text(json.dumps({**json.loads(path.read_text()), "facts": facts}))
    with pytest.raises(StateError, match=r"survey/tiny.json: lacks .*run `dvc repro --force`"):
        surveys.read("tiny")
