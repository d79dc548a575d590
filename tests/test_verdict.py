import pytest

from pipeline import verdict
from pipeline.verdict import Estimate


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.012, 0.05, "fine-tune"),
        (-0.02, 0.03, "cannot tell"),
        (-0.05, 0.005, "keep the frozen head"),
        (-0.05, -0.01, "keep the frozen head"),
        (0.001, 0.009, "keep the frozen head"),
    ],
)
def test_the_interval_and_the_margin_give_the_answer(low: float, high: float, answer: str) -> None:
    assert verdict._answer(Estimate((low + high) / 2, low, high), margin=0.01) == answer


def test_no_plan_is_no_answer() -> None:
    assert verdict._answer(None, 0.01) == "cannot tell"
