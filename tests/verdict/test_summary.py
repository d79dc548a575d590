import dataclasses

from pipeline.verdict import summary
from tests.report.examples import evidence


def test_what_more_labels_brought_is_said_of_every_run_and_where_a_plan_gets_ahead() -> None:
    sentence = summary.standing(evidence().verdict)[0].sentence
    assert sentence.startswith(
        "From 10 to 100 labels, with the settings of the section curve in params.yaml, test accuracy goes: "
        "logreg 85.0% to 85.0%, last 85.0% to 85.0%. last is ahead of the best frozen head (logreg) from 32 labels on;"
    )


def test_without_plans_on_the_curve_the_crossover_was_not_measured() -> None:
    verdict = evidence(titles=("logreg",)).verdict
    assert summary.standing(verdict)[0].sentence.endswith("gets ahead was not measured.")


def test_work_that_a_gpu_shared_is_compared_by_the_clock() -> None:
    verdict = evidence().verdict
    head, plan = verdict.results
    on_gpu = dataclasses.replace(plan, device="cuda", cost=dataclasses.replace(plan.cost, seconds=9.0))
    mixed = dataclasses.replace(verdict, results=[head, on_gpu])
    assert "last 4 s on cuda: 4.5x the time." in summary.standing(mixed)[2].sentence
    assert "last 4 s on cpu: 1.3x the CPU time." in summary.standing(verdict)[2].sentence


def test_what_was_not_timed_is_not_said() -> None:
    verdict = evidence().verdict
    untimed = [dataclasses.replace(result, seconds_per_1000=None) for result in verdict.results]
    assert "A thousand" not in summary.standing(dataclasses.replace(verdict, results=untimed))[2].sentence
