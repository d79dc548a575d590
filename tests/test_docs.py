"""What the documents show is true: settings validate, commands run, files exist."""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.cli.parser import get_main_parser
from ruamel.yaml import YAML

from pipeline import cli
from pipeline.core import params
from tests.conftest import REPOSITORY

DOCUMENTS = sorted(path.name for path in REPOSITORY.glob("*.md"))
DOCUMENTS += [f"{name}/{path.name}" for name in ("benchmarks", "docs") for path in (REPOSITORY / name).glob("*.md")]


def blocks(document: str, language: str) -> list[str]:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in fenced if name == language]


def commands() -> Iterator[str]:
    """Yield every command that a document shows."""
    for document in DOCUMENTS:
        for block in blocks(document, ""):
            yield from (line.split("#")[0].strip() for line in block.splitlines() if line.strip())


def mentioned(program: str) -> list[str]:
    """Return what a program is told where documents, messages or comments mention it, sorted, each once."""
    places = [REPOSITORY / name for name in [*DOCUMENTS, "params.yaml", "data/README.md"]]
    places += sorted((REPOSITORY / "pipeline").rglob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in places)
    return sorted({one.strip() for one in re.findall(rf"(?:^|`|[$&] ){program} ([a-z][^`#|'\n]*)", text, re.MULTILINE)})


def unknown_to(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """Return the command or the options that a parser does not have; what else follows is for it to judge."""
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        choices = action.choices or {}
        return unknown_to(choices[words[0]], words[1:]) if words and words[0] in choices else words[:1]
    options = {word.partition("=")[0].strip("[]") for word in words if re.match(r"\[?-", word)}
    return sorted(options - parser._option_string_actions.keys())


@pytest.mark.parametrize("program", ["headswap", "dvc"])
def test_every_command_that_is_mentioned_anywhere_has_these_options(program: str) -> None:
    parser = {"headswap": cli.parser, "dvc": get_main_parser}[program]()
    told = mentioned(program)
    assert len(told) > 20
    assert {one: unknown for one in told if (unknown := unknown_to(parser, one.split()))} == {}


@pytest.mark.parametrize("block", [block for document in DOCUMENTS for block in blocks(document, "python")])
def test_code_that_is_shown_can_be_read(block: str) -> None:
    compile(block, "document", "exec")


@pytest.mark.parametrize("block", [block for document in DOCUMENTS for block in blocks(document, "yaml")])
def test_settings_that_are_shown_are_valid(tmp_path: Path, block: str) -> None:
    yaml = YAML(typ="safe")
    content = yaml.load(REPOSITORY / "params.yaml")
    for section, values in yaml.load(block).items():
        content[section] = {**content[section], **values}
    with (tmp_path / "params.yaml").open("w") as stream:
        yaml.dump(content, stream)
    params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "command",
    sorted(
        {command for command in commands() if command.startswith("make")}
        | {f"make {rest}" for rest in mentioned("make")}
    ),
)
def test_every_make_target_that_is_shown_exists(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_other_command_is_one_that_an_end_to_end_test_runs() -> None:
    shown = {command for command in commands() if not command.startswith("make")}
    files = [REPOSITORY / "tests" / name for name in ("test_end_to_end.py", "test_own_images.py")]
    source = " ".join(word for file in files for word in file.read_text(encoding="utf-8").split())
    assert len(shown) > 5
    assert all(", ".join(f'"{word}"' for word in command.split()) in source for command in shown - {"dvc repro"})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / document).parent.joinpath(target).exists(), target
