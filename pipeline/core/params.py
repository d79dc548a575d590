"""params.yaml as one frozen, validated model; an unknown key is an error that names the nearest valid one."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import InputError, one_line, unknown
from pipeline.core.sections import (
    BackboneEntry,
    Compare,
    Curve,
    Data,
    Embed,
    HeadEntry,
    Name,
    OrEmpty,
    Plan,
    Run,
    Section,
    Selection,
    Setting,
    Split,
)

PARAMS = Path("params.yaml")
Entry = TypeVar("Entry")


class Params(Section):
    """The whole of params.yaml; what dvc.yaml names has no default, because DVC would not know it."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    split: Split
    embed: Embed
    selection: Selection
    curve: Curve
    compare: Compare
    run: Run
    backbones: dict[Name, OrEmpty[BackboneEntry]]
    heads: dict[Name, OrEmpty[dict[str, Setting]]]
    plans: dict[Name, Plan] = Field(default_factory=dict)

    def backbone(self, name: str) -> BackboneEntry:
        """Return a catalogue entry; InputError names the nearest one."""
        return _entry(self.backbones, "backbones", name)

    def head(self, name: str) -> HeadEntry:
        """Return a catalogue entry; InputError names the nearest one."""
        return _entry(self.heads, "heads", name)

    def plan(self, name: str) -> Plan:
        """Return a catalogue entry; InputError names the nearest one."""
        return _entry(self.plans, "plans", name)

    def runs(self) -> Iterator[tuple[str, str]]:
        """Yield every (backbone, head or plan) that `run` asks for."""
        for backbone in self.run.backbones:
            for name in [*self.run.heads, *self.run.plans]:
                yield backbone, name


def _entry(catalogue: Mapping[str, Entry], section: str, name: str) -> Entry:
    if name not in catalogue:
        raise InputError(f"{unknown(f'{PARAMS}: {section}', name, catalogue)}; or add an entry for it there")
    return catalogue[name]


Known: TypeAlias = Callable[[str], Collection[str]]
"""From `backbones`, `heads` or `plans` to the names for which an empty entry is enough."""
Heads: TypeAlias = Mapping[str, HeadEntry]
HeadCheck: TypeAlias = Callable[[Heads, Heads], Iterable[str]]
"""From `heads` and `curve.heads` to a line for each of their problems."""
SECTION_OF = {"backbone": "backbones", "head": "heads", "plan": "plans"}
"""Option of a command -> the section whose entries it names."""


def load(
    path: Path = PARAMS,
    known: Known = lambda _section: (),
    asked: Mapping[str, Any] | None = None,
    check_heads: HeadCheck = lambda _heads, _of_curve: (),
) -> Params:
    """Read and validate params.yaml; InputError gathers every violation, one line each.

    Args:
        path: of the file.
        known: is called only where a name has no entry.
        asked: the options of the command; a backbone, head or plan among them must have an entry, too.
        check_heads: is called only where something is wrong already, to report the problems of heads beside it.

    """
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run from the project's folder") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(_not_yaml(path, error)) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got {type(content).__name__}, expected sections `data:`, `run:`, ...")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        found = sorted({_line(path, detail) for detail in _causes(error.errors())})
        raise InputError(*found, *check_heads(*_heads_in(content))) from error
    if problems := list(_problems_across_sections(path, params, known, asked or {})):
        raise InputError(*problems, *check_heads(params.heads, params.curve.heads))
    return params


def _heads_in(content: Mapping[str, Any]) -> tuple[Heads, Heads]:
    """Return the well-formed entries under `heads` and `curve.heads` of a params.yaml that is not valid as a whole."""
    curve = content.get("curve")
    catalogue, of_curve = (
        {name: entry for name, entry in heads.items() if _is_head(name, entry)} if isinstance(heads, dict) else {}
        for heads in (content.get("heads"), curve.get("heads") if isinstance(curve, dict) else None)
    )
    return catalogue, of_curve


def _is_head(name: object, entry: object) -> bool:
    try:
        TypeAdapter(dict[Name, dict[str, Setting]]).validate_python({name: entry})
    except ValidationError:
        return False
    return True


def _not_yaml(path: Path, error: YAMLError | UnicodeDecodeError) -> str:
    """Return the line for a file that is not YAML: which line of it, what is wrong, and what to look at."""
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not valid YAML: not UTF-8 text; save it as UTF-8"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}: " if mark else ""
    look = "look there and at the line above for indentation, brackets, quotes, and a space after each colon"
    return f"{path}: {where}not valid YAML: {one_line(problem or error)}; {look}"


def _problems_across_sections(path: Path, params: Params, known: Known, asked: Mapping[str, Any]) -> Iterator[str]:
    yield from _without_entry(path, params, known, asked)
    for section, names in params.run:
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{path}: run.{section}: {name!r} is listed twice"
    yield from _one_file(path, params.run.backbones)
    yield from _one_file(path, [*params.run.heads, *params.run.plans])
    for name in params.curve.plans:
        if name in params.curve.heads:
            yield f"{path}: curve: {name!r} is both a head and a plan"
    for name in sorted(params.heads.keys() & params.plans.keys()):
        yield f"{path}: {name!r} is both a head and a plan; both write predictions/<backbone>/{name}.parquet"


def _without_entry(path: Path, params: Params, known: Known, asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each name without an entry: DVC needs one even if the code has a default for every setting."""
    named = [(f"{path}: run.{section}", section, name) for section, names in params.run for name in names]
    named += [(f"{path}: curve.plans", "plans", name) for name in params.curve.plans]
    named += [
        (f"--{option}: {path}: {section}", section, asked[option])
        for option, section in SECTION_OF.items()
        if option in asked
    ]
    for field, section, name in named:
        if name in (entries := getattr(params, section)):
            continue
        if name in (usable := known(section)):
            yield f"{field}: {name!r} has no entry; put this line under `{section}:`: `  {name}: {{}}`"
        else:
            yield unknown(field, name, {*entries, *usable})


def _one_file(path: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each name that differs from an earlier one in case alone: on macOS they are one file."""
    first = {name.casefold(): name for name in reversed(names)}
    for name in sorted(set(names)):
        if (other := first[name.casefold()]) != name:
            yield f"{path}: run: {other!r} and {name!r} differ in case alone, and some file systems take them for one"


def _causes(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out that a list is too short where one of its items is refused: pydantic no longer counts that one."""
    places = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(len(place) > len(detail["loc"]) and place[: len(detail["loc"])] == detail["loc"] for place in places)
    ]


def _line(path: Path, detail: ErrorDetails) -> str:
    """Return the line for one error of pydantic: field, got, expected, nearest valid name."""
    place = [str(part) for part in detail["loc"]]
    field = ".".join(place)
    if detail["type"] == "extra_forbidden":
        section = _section_at(place[:-1])
        return unknown(f"{path}: {'.'.join(place[:-1]) or 'top level'}: unknown key", place[-1], section.model_fields)
    if detail["type"] == "missing":
        return f"{path}: {field}: missing"
    beneath = place[1:] if place[0] == "curve" and len(place) > 1 else place
    if beneath[0] == "heads" and len(beneath) > 2 and place[-1] != "[key]":
        setting = ".".join(place[: len(place) - len(beneath) + 3])
        return f"{path}: {setting}: expected a finite single value, or a list of them to search"
    if detail["type"] == "literal_error":
        return unknown(f"{path}: {field}", str(detail["input"]), re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
    got = "" if isinstance(detail["input"], dict) else f"got {detail['input']!r}, "
    return f"{path}: {field}: {got}{_reason(detail)}"


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "mapping_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} of them",
    "string_pattern_mismatch": "text that matches {pattern}",
}
"""pydantic's kind of error -> what was expected, with what pydantic says of it."""


def _reason(detail: ErrorDetails) -> str:
    """Return what was expected, in our words for the common kinds of error and in pydantic's for others."""
    if expected := _EXPECTED.get(detail["type"]):
        limits = {
            name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in detail.get("ctx", {}).items()
        }
        return f"expected {expected.format(**limits)}"
    reason = detail["msg"].removeprefix("Value error, ")
    return reason[:1].lower() + reason[1:]


def _section_at(place: list[str]) -> type[BaseModel]:
    """Find the model behind a path of keys; a catalogue's keys are skipped, for they are the user's own."""
    entries: dict[str, type[BaseModel]] = {"backbones": BackboneEntry, "plans": Plan}
    model: type[BaseModel] = Params
    for key in place:
        if key in entries and model is Params:
            return entries[key]
        annotation: Any = model.model_fields[key].annotation
        model = annotation
    return model
