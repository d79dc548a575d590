"""The page on sources shows the code that is there."""

import inspect
import re

from pipeline.core.sections import ARCHIVES
from pipeline.data.sources import SOURCES, catalogue
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/add-a-source.md").read_text(encoding="utf-8")


def test_the_function_that_is_shown_is_the_real_one() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == inspect.getsource(catalogue.image_folder)


def test_every_source_and_every_kind_of_archive_is_listed() -> None:
    assert all(f"| `{name}` |" in PAGE for name in SOURCES)
    assert all(f"`{suffix}`" in PAGE for suffix in ARCHIVES)
