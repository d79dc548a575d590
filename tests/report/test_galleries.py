import dataclasses

from pipeline.report.galleries import MOST, Gallery, galleries
from pipeline.report.rendering import render
from pipeline.report.sections import worst
from tests.report.examples import evidence


def test_errors_come_worst_first_and_each_gallery_holds_what_its_title_says() -> None:
    of_head, of_plan, only_head, only_plan = galleries(evidence(images=200, pictured=50))
    assert len(of_head.pictures) == MOST < of_head.found
    shown = [picture.decisions[0] for picture in of_head.pictures]
    assert not any(one.right for one in shown)
    assert [one.percent for one in shown] == sorted((one.percent for one in shown), reverse=True)
    assert all(not picture.decisions[1].right for picture in of_plan.pictures)
    assert all(tuple(one.right for one in picture.decisions) == (True, False) for picture in only_head.pictures)
    assert all(tuple(one.right for one in picture.decisions) == (False, True) for picture in only_plan.pictures)
    assert of_head.found - of_plan.found == only_plan.found - only_head.found


def test_headings_count_errors_as_errors_and_say_so_where_there_are_none() -> None:
    of_head, _, only_head, _ = galleries(given := evidence(images=200, pictured=50))
    assert of_head.found_in_words == f"{of_head.found} errors"
    assert only_head.found_in_words == f"{only_head.found} such images"
    one = Gallery("The worst errors of knn", 0, "0 errors", [])
    assert "knn</bdi>: none</h3>" in render("galleries.html.j2", galleries=[one])
    assert f"{MOST} of {of_head.found} errors</h3>" in str(worst(given))


def test_decisions_are_those_of_the_predictions() -> None:
    given = evidence(images=200)
    picture = galleries(given)[0].pictures[0]
    for decision, one in zip(picture.decisions, given.decided, strict=True):
        row = list(one.image_id).index(picture.image_id)
        assert decision.decided == one.classes[one.decision()[row]]
        assert decision.percent == round(100 * one.probability[row].max())
        assert decision.right == (decision.decided == one.label[row] == picture.label)


def test_an_image_without_a_thumbnail_is_listed_without_a_picture() -> None:
    given = evidence(pictured=0)
    assert all(picture.source is None for gallery in galleries(given) for picture in gallery.pictures)


def test_without_a_plan_only_the_heads_errors_are_shown() -> None:
    given = evidence()
    alone = dataclasses.replace(given, verdict=dataclasses.replace(given.verdict, best_plan=None))
    assert [gallery.title for gallery in galleries(alone)] == ["The worst errors of logreg"]
