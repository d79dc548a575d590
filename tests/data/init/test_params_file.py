"""Sections of params.yaml are replaced; every other byte stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.core.errors import InputError
from pipeline.data.init.params_file import rewritten
from tests.conftest import REPOSITORY

TEXT = """# The file.
seed: 0

data:
  source: elpv  # the demo
  path: a

# --- About splits
split: {method: hash}
run:
  heads:
    - a

  # a comment inside

# --- Catalogues
heads: {}
"""


def test_a_section_is_replaced_and_the_comments_around_it_stay() -> None:
    found = rewritten(TEXT, {"data": "data:\n  path: b\n", "run": "run: 1\n"})
    assert found == TEXT.replace("data:\n  source: elpv  # the demo\n  path: a\n", "data:\n  path: b\n").replace(
        "run:\n  heads:\n    - a\n\n  # a comment inside\n", "run: 1\n"
    )


@pytest.mark.parametrize("text", ["seed: 0\n", '"data": {}\n', "data : {}\n", "{data: {}}\n"])
def test_a_section_that_is_not_found_is_named(text: str) -> None:
    with pytest.raises(InputError, match="a line that begins with `data:`"):
        rewritten(text, {"data": "data: 1\n"})


@given(st.lists(st.sampled_from(["data", "split", "run", "heads", "plans", "compare"]), unique=True))
def test_only_the_given_sections_change(names: list[str]) -> None:
    text = (REPOSITORY / "params.yaml").read_text()
    new = rewritten(text, {name: f"{name}: new\n" for name in names})
    before, after = (YAML(typ="safe").load(one) for one in (text, new))
    assert after == {**before, **dict.fromkeys(names, "new")}
    assert list(after) == list(before)
