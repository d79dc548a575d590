"""The page is one inert, self-contained file."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.evaluation import comparison
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.report import charts, drawing, embedding_map, page, sections
from pipeline.report.sections import SECTIONS
from pipeline.verdict import schema
from pipeline.verdict.schema import Factor
from tests.report.examples import evidence, survey
from tests.stages.spine import undrawn

NASTY = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", '"><svg onload=alert(1)>', "=cmd()")


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def text() -> str:
    return page.page(evidence())


@pytest.fixture
def undrawn_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn(monkeypatch)


def test_it_needs_no_network_and_no_other_file(text: str) -> None:
    parsed = Parsed(text)
    assert not parsed.all("iframe", "object", "embed", "form", "base")
    assert all(one["href"] == "data:," for one in parsed.all("link"))
    assert all(str(one["src"]).startswith("data:image/webp;base64,") for one in parsed.all("img"))
    assert not [one for one in parsed.all("script") if "src" in one]


def test_its_content_policy_allows_only_its_own_scripts(text: str) -> None:
    parsed = Parsed(text)
    (policy,) = [one["content"] for one in parsed.all("meta") if "http-equiv" in one]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    run = [script for script in parsed.scripts if script.strip() and not script.startswith("{")]
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run}
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy))
    assert len(hashes) == 2


def test_the_answer_comes_first_and_every_section_follows_in_order(text: str) -> None:
    titles = [section.title for function in SECTIONS if (section := function(evidence()))]
    assert len(titles) >= 11
    places = [text.index("<h1>cannot tell</h1>"), *(text.index(f'-title">{title}</h2>') for title in titles)]
    assert places == sorted(places)
    ids = [one["id"] for _, one in Parsed(text).tags if "id" in one]
    assert len(ids) == len(set(ids))
    links = [str(one["href"]) for one in Parsed(text).all("a")]
    assert set(links) <= {f"#{one}" for one in ids}


def test_pictures_have_text_alternatives(text: str) -> None:
    parsed = Parsed(text)
    assert all(one["role"] == "img" and one["aria-label"] for one in parsed.all("svg"))
    assert all(one["alt"] for one in parsed.all("img"))
    assert len(parsed.all("svg")) == 7 * len(drawing.CHART_SIZES)


def test_names_are_inert() -> None:
    given = evidence(classes=NASTY, titles=NASTY, ids=NASTY)
    skipped = {name: {name: name} for name in NASTY}
    changed = dataclasses.replace(
        given.verdict, skipped=skipped, notes=list(NASTY), inputs=dict.fromkeys(NASTY, "0" * 64)
    )
    parsed = Parsed(page.page(dataclasses.replace(given, verdict=changed)))
    assert len(parsed.all("script")) == 3
    assert all(str(one["src"]).startswith("data:") for one in parsed.all("img"))
    assert not [attribute for _, one in parsed.tags for attribute in one if attribute.startswith("on")]


def test_its_data_hold_the_position_of_every_image_and_the_decisions_of_every_run(text: str) -> None:
    given = evidence()
    data = json.loads(next(script for script in Parsed(text).scripts if script.startswith("{")))
    assert data["images"] == list(given.table.image_id)
    assert len(data["maps"][0]["x"]) == len(data["maps"][0]["row"]) == len(given.table)
    first = given.decided[0]
    assert [data["images"][row] for row in data["judged"]] == list(first.image_id)
    assert data["runs"][0]["decided"] == first.decision().tolist()
    cells = [data["cell"][given.table.image_id.index(name)] for name in given.thumbnails.image_id]
    assert cells == list(range(len(cells)))
    assert data["cell"].count(-1) == len(given.table) - len(cells)


def test_runs_with_different_validation_images_keep_their_own_decisions() -> None:
    given = evidence()
    head, plan = given.decided
    fewer = Predictions(
        head.image_id[1:], head.split[1:], head.label[1:], head.classes, head.probability[1:]
    )  # as of a backbone that left an image out
    data = embedding_map.data(dataclasses.replace(given, decided=[fewer, plan]))
    assert [data["images"][row] for row in data["judged"]] == list(plan.image_id)
    assert data["runs"][0]["decided"] == [-1, *fewer.decision().tolist()]
    assert data["runs"][1]["decided"] == plan.decision().tolist()


def test_the_table_holds_the_numbers_with_their_intervals(text: str) -> None:
    assert "85.0<small>80.0 to 90.0</small>" in text
    assert re.search(r"[+-]\d+\.\d<small>[+-]\d+\.\d to [+-]\d+\.\d</small>", text)


def test_runs_are_listed_from_the_best_test_score_on() -> None:
    given = evidence()
    for scores, expected in (((0.7, 0.9), ["last", "logreg"]), ((0.9, 0.7), ["logreg", "last"])):
        results = [
            dataclasses.replace(one, test={**one.test, "accuracy": Estimate(score, 0, 1)})
            for one, score in zip(given.verdict.results, scores, strict=True)
        ]
        changed = dataclasses.replace(given, verdict=dataclasses.replace(given.verdict, results=results))
        body = sections.results(changed).body
        assert re.findall(r'<td data-value="(logreg|last)">', body) == expected


def test_of_more_classes_than_the_table_has_room_for_those_with_the_least_recall_stand_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recall = {"a": 0.9, "b": 0.2, "c": 0.5, "d": 0.8}
    by_class = {name: {"recall": Estimate(value, 0, 1)} for name, value in recall.items()}
    results = [dataclasses.replace(one, detail={"by_class": by_class}) for one in evidence().verdict.results]
    for most, expected in ((8, ["a", "b", "c", "d"]), (4, ["b", "c"])):
        monkeypatch.setattr(sections, "MOST_ROWS", most)
        assert sections._hardest(results[0], len(results)) == expected


@pytest.mark.usefixtures("undrawn_charts")
def test_a_metric_that_the_test_images_do_not_define_is_a_dash() -> None:
    given = evidence()
    results = [dataclasses.replace(one, test={"accuracy": one.test["accuracy"]}) for one in given.verdict.results]
    changed = dataclasses.replace(given, verdict=dataclasses.replace(given.verdict, results=results))
    assert '<td data-value="">\N{EN DASH}</td>' in page.page(changed)


def test_a_crossover_is_in_words_above_its_chart(text: str) -> None:
    words = "last stays ahead of the best frozen head (logreg) from 32 labels on; 95% interval [10 or fewer, beyond "
    assert text.index(words) < text.index("Test accuracy by number of labels")


@pytest.mark.usefixtures("undrawn_charts")
def test_test_images_are_counted_after_the_name_of_their_class_so_that_numbers_can_name_classes() -> None:
    words = " ".join(page.page(evidence(classes=("0", "1"))).split())
    assert "<bdi>0</bdi>: 20, <bdi>1</bdi>: 20." in words


@pytest.mark.usefixtures("undrawn_charts")
def test_commands_in_sentences_are_shown_as_code_and_no_backtick_is_left() -> None:
    given = evidence()
    spoken = "run `headswap x`"
    changed = dataclasses.replace(
        given.verdict, sentence=spoken, rule=spoken, standing=[Factor("Compute", spoken)], notes=[spoken],
        failed={"tiny/mlp": spoken}, skipped={"tiny": {"a.png": spoken}},
    )  # fmt: skip
    markup = page.page(dataclasses.replace(given, verdict=changed)).split("<script")[0]
    assert "`" not in markup
    assert markup.count("run <code>headswap x</code>") == 7


@pytest.mark.usefixtures("undrawn_charts")
def test_a_single_run_is_reported_without_the_sections_that_compare() -> None:
    given = evidence(titles=("logreg",))
    alone = dataclasses.replace(given.verdict, detectable=None, curves={})
    text = page.page(dataclasses.replace(given, verdict=alone))
    assert "Against the best frozen head" not in text
    assert "How fine-tuning went" not in text
    assert "What more labels bring" not in text


@pytest.mark.usefixtures("undrawn_charts")
def test_more_classes_than_a_matrix_can_show_become_a_list_of_confusions() -> None:
    text = page.page(evidence(images=200, classes=[f"class{number}" for number in range(charts.MOST_CLASSES + 1)]))
    assert "Confusion matrix of every run" not in text
    assert "the most frequent" in text


def test_however_many_images_and_classes_the_page_stays_small_and_says_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "_MOST_SORTED", 0)  # which takes a tenth of the time here
    few, more = 12_000, 250_000
    given = evidence(images=few, classes=[f"class {number:04}" for number in range(1000)], pictured=0)
    ids = [f"{number:05}.png" for number in range(few)] + [f"a folder/{number:08}.jpeg" for number in range(more)]
    label = [*given.table.label, *given.table.classes * (more // 1000)]
    split = [*given.table.split, *["train"] * more]
    table = Manifest(ids, ids, [f"{number:064x}" for number in range(len(ids))], label, [None] * len(ids), split)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8))
    with BytesIO() as stream:
        noise.resize((4400, 4400)).save(stream, "WEBP", quality=75, method=0)
        pictures = Thumbnails(ids[-3000:], [b""] * 3000, stream.getvalue(), 55, 80)
    assert len(pictures.sprite) > 2e6
    changed = dataclasses.replace(
        given.verdict,
        skipped={"tiny": dict.fromkeys(ids[:50_000], "a reason")},
        notes=[f"note {n}" for n in range(9999)],
    )
    text = page.page(dataclasses.replace(
        given, verdict=changed, table=table, surveys={"tiny": survey(table)}, thumbnails=pictures
    ))  # fmt: skip
    assert len(text.encode()) < 8_000_000
    assert re.search(r"The map shows [\d,]{5,7} of 262,000 images: those with a thumbnail", text)
    assert re.search(r"[\d,]+ images have a picture on the map; all 3,000 pictures would make the page too large", text)
    assert re.search(
        r"The 150 of [\d,]+ classes in which .* has the lowest recall; the others are in reports/verdict.json", text
    )
    assert "The first 300 of 50,000; the others are in reports/verdict.json" in text
    assert "9,699 more notes are in reports/verdict.json" in text
    data = json.loads(next(script for script in Parsed(text).scripts if script.startswith("{")))
    pictured = [image for image, cell in zip(data["images"], data["cell"], strict=True) if cell >= 0]
    assert pictured == ids[-3000 : len(ids) - 3000 + len(pictured)]


def test_the_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "page", lambda given: "<p>whole \u2713</p>")
    page.write(evidence())
    assert schema.PAGE.read_text(encoding="utf-8") == "<p>whole \u2713</p>"
    assert [path.name for path in schema.PAGE.parent.iterdir()] == [schema.PAGE.name]


def test_a_damaged_copy_of_the_library_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    library = embedding_map.library.__wrapped__
    good = library()
    (kept,) = embedding_map.SCRIPTS.iterdir()
    assert library() == good
    kept.write_text(kept.read_text().replace("vegaEmbed", "evilEmbed"))
    assert library() == good
    assert "evilEmbed" not in kept.read_text()
