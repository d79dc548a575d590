import dataclasses

from pipeline.verdict.wording.factors import factors
from tests.report.examples import evidence


def test_the_label_factor_has_the_gain_of_every_run_and_the_crossover() -> None:
    sentence = factors(evidence().verdict)[0].sentence
    assert sentence.startswith(
        "With the settings of the section curve in params.yaml, test accuracy from 10 to 100 labels: "
        "logreg 85.0% to 85.0%, last 85.0% to 85.0%. "
        "last stays ahead of the best frozen head (logreg) from 32 labels on;"
    )


def test_without_plans_on_the_curve_the_crossover_was_not_measured() -> None:
    verdict = evidence(titles=("logreg",)).verdict
    assert factors(verdict)[0].sentence.endswith("fine-tuning stays ahead was not measured.")


def test_runs_on_a_gpu_are_compared_by_wall_time() -> None:
    verdict = evidence().verdict
    head, plan = verdict.results
    on_gpu = dataclasses.replace(plan, device="cuda", cost=dataclasses.replace(plan.cost, seconds=9.0))
    mixed = dataclasses.replace(verdict, results=[head, on_gpu])
    assert "last 4 s on cuda: 4.5x the time." in factors(mixed)[2].sentence
    assert "last 4 s on cpu: 1.3x the CPU time." in factors(verdict)[2].sentence


def test_predictions_that_were_not_timed_are_not_mentioned() -> None:
    verdict = evidence().verdict
    untimed = [dataclasses.replace(result, seconds_per_1000=None) for result in verdict.results]
    sentence = factors(dataclasses.replace(verdict, results=untimed))[2].sentence
    assert "Predicting 1,000" not in sentence
    assert "To predict" not in sentence


def test_timings_that_the_head_explains_or_of_two_networks_are_compared_as_wall_time_at_training() -> None:
    verdict = evidence().verdict
    head, plan = verdict.results
    slower = dataclasses.replace(verdict, results=[dataclasses.replace(head, seconds_per_1000=14.0), plan])
    words = "Predicting 1,000 new images took 14.0 s with logreg and 12.5 s with last: wall time, measured when each"
    assert words in factors(slower, head_adds=2.0)[2].sentence
    assert "they do not show which is faster" in factors(slower, head_adds=1.0)[2].sentence
    other = dataclasses.replace(slower.results[0], backbone="other")
    assert words in factors(dataclasses.replace(slower, best_head=other.run, results=[other, plan]))[2].sentence
