"""The page is one inert, self-contained file."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from pipeline import report, verdict
from pipeline.cost import Cost
from pipeline.evaluation.efficiency import Crossover, LabelEfficiency, Reached
from pipeline.report.sections import SECTIONS
from pipeline.verdict import Difference, Estimate, Result, Verdict

ESTIMATE = Estimate(0.85, 0.80, 0.90)
NASTY = "<img src=x onerror=alert(1)>"


def curve(head: str) -> LabelEfficiency:
    reached = [Reached(labels, ESTIMATE, 0.01) for labels in (10, 100)]
    crossover = Crossover("last", [head, head], 31.6, 10.0, None, 0.9)
    return LabelEfficiency("accuracy", 3, {head: reached, "last": reached}, {head: "head", "last": "plan"}, [crossover])


def judged(title: str = "logreg", classes: tuple[str, ...] = ("a", "b")) -> Verdict:
    metrics = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"), ESTIMATE)

    def result(name: str, kind: str, text: str) -> Result:
        difference = Difference(Estimate(0.01, -0.02, 0.04), 5, 7, 0.77)
        return Result("tiny", name, kind, text, {"accuracy": 0.8}, metrics, difference, Cost(2.0, 3.0, 100))

    return Verdict(
        answer="cannot tell",
        sentence=f"The best frozen head, {title}, ...",
        rule="a rule",
        metric="accuracy",
        margin=0.01,
        resamples=5000,
        test_images=dict.fromkeys(classes, 10),
        best_head="tiny/logreg",
        best_plan="tiny/last",
        results=[result("logreg", "head", title), result("last", "plan", "last")],
        skipped={},
        inputs={"predictions/tiny/logreg.parquet": "0" * 64},
        curves={title: curve(title)},
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))


def page(one: Verdict) -> str:
    report.write(one)
    return verdict.PAGE.read_text()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_it_needs_no_network_and_no_script() -> None:
    text = page(judged())
    assert not re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", text)
    parser = Tags()
    parser.feed(text)
    assert not {tag for tag, _ in parser.seen} & {"script", "link", "iframe", "img"}


def test_the_answer_comes_first_and_every_section_follows_in_order() -> None:
    text = page(judged())
    titles = [section.title for function in SECTIONS if (section := function(judged()))]
    places = [text.index("<h1>cannot tell</h1>"), *(text.index(f"<h2>{title}</h2>") for title in titles)]
    assert places == sorted(places)


def test_pictures_have_text_alternatives() -> None:
    parser = Tags()
    parser.feed(page(judged()))
    pictures = [attributes for tag, attributes in parser.seen if tag == "svg"]
    assert len(pictures) == 4
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


@pytest.mark.parametrize("text", [NASTY, "</script><script>alert(1)</script>", '"><svg onload=alert(1)>'])
def test_names_are_inert(text: str) -> None:
    one = dataclasses.replace(
        judged(text, (text, "b")), inputs={text: "0" * 64}, skipped={"tiny": {text: text}}, best_head="tiny/logreg"
    )
    parser = Tags()
    parser.feed(page(one))
    assert not [tag for tag, _ in parser.seen if tag in {"script", "img"}]
    assert not [name for _, attributes in parser.seen for name in attributes if name.startswith("on")]


def test_the_table_holds_the_numbers_with_their_intervals() -> None:
    text = page(judged())
    assert "85.0<small>80.0 to 90.0</small>" in text
    assert "+1.0<small>-2.0 to +4.0</small>" in text
    assert "0.770" in text


def test_a_crossover_stands_in_words_above_its_picture() -> None:
    text = page(judged())
    words = "last is ahead of the best frozen head (logreg) from 32 labels on; 95% interval [10 or fewer, beyond "
    assert text.index(words) < text.index("Test accuracy by number of labels")


def test_without_a_curve_its_section_is_left_out() -> None:
    assert "What more labels bring" not in page(dataclasses.replace(judged(), curves={}))
