from pathlib import Path

import numpy as np
import pytest

from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.evaluation import curves
from pipeline.evaluation.curves import CurveDecisions, Point
from pipeline.verdict.wording import notes

CURVE = CurveDecisions(
    image_id=["a", "b", "c"],
    split=["val", "test", "test"],
    label=["x", "y", "x"],
    classes=["x", "y"],
    kinds={"logreg": "head", "last": "plan"},
    points=[Point("logreg", 10, 0, np.array([0, 1, 1])), Point("last", 20, 1, np.array([1, 1, 0]))],
    costs={"logreg": Cost(1.0, 2.0, 0), "last": Cost(3.0, 4.0, 5)},
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_written_is_read_back() -> None:
    curves.write("tiny", CURVE, {"data/manifest.parquet": "0" * 64})
    found = curves.read("tiny")
    for name in ("image_id", "split", "label", "classes", "kinds", "costs"):
        assert getattr(found, name) == getattr(CURVE, name)
    for one, other in zip(found.points, CURVE.points, strict=True):
        assert (one.run, one.labels, one.seed) == (other.run, other.labels, other.seed)
        np.testing.assert_array_equal(one.decided, other.decided)


def test_equal_curves_are_equal_bytes() -> None:
    curves.write("one", CURVE, {})
    curves.write("two", CURVE, {})
    assert curves.path_of("one").read_bytes() == curves.path_of("two").read_bytes()


def test_altered_bytes_are_refused() -> None:
    curves.write("tiny", CURVE, {})
    path = curves.path_of("tiny")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StateError, match=r"curves/tiny.parquet: sha256: got .* as stamped"):
        curves.read("tiny")


def test_a_curve_without_trainings_is_a_curve() -> None:
    curves.write("tiny", CurveDecisions(["a"], ["val"], ["x"], ["x", "y"], {}, [], {}), {})
    assert curves.read("tiny").points == []


def test_parts_that_a_minimum_of_each_class_makes_larger_or_equal_are_named() -> None:
    asked = (0.05, 0.1, 0.25, 0.5, 1.0)
    assert curves.unlike_fractions([9, 17, 41, 81, 160], asked, 5) == ""
    said = curves.unlike_fractions([15, 41, 81, 160], asked, 5)
    assert said == (
        "4 of 5 fractions, the smallest 9% of the training images instead of 5%, because every part holds at least 5 "
        "images of each class"
    )
    assert curves.unlike_fractions([15, 17, 41, 81, 160], asked, 5).startswith("5 of 5 fractions, the smallest 9%")
    curve = CurveDecisions([], [], [], [], {}, [Point("logreg", labels, 0, np.array([])) for labels in (15, 160)], {})
    assert list(notes.of_curves({"tiny": curve}, (0.05, 1.0), 5)) == [
        "The label curve on tiny has 2 of 2 fractions, the smallest 9% of the training images instead of 5%, because "
        "every part holds at least 5 images of each class."
    ]
