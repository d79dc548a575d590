import pytest

from pipeline import verdict
from pipeline.cost import Cost
from pipeline.evaluation.comparison import Estimate
from pipeline.verdict import Answer, Difference, Result


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


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("fine-tune", "changes that by +1.0 points [-2.0, +4.0] for 3.0x the compute. Fine-tune."),
        ("keep the frozen head", "for 3.0x the compute. Keep the frozen head."),
        (
            "cannot tell",
            "Only one of the two is right on 12 images, which is too few to tell: "
            "fine-tuning has not been shown to pay.",
        ),
    ],
)
def test_the_sentence_ends_with_the_answer(answer: Answer, ending: str) -> None:
    def result(name: str, cpu_seconds: float) -> Result:
        test = {"accuracy": Estimate(0.85, 0.80, 0.90)}
        difference = Difference(Estimate(0.01, -0.02, 0.04), 5, 7, 0.77)
        return Result("tiny", name, "head", name, {}, test, difference, Cost(1.0, cpu_seconds, 10))

    sentence = verdict._sentence(answer, result("logreg", 2.0), result("last", 6.0), "accuracy")
    assert sentence.startswith("The best frozen head, logreg, reaches 85.0% test accuracy; fine-tuning (last) ")
    assert sentence.endswith(ending)
