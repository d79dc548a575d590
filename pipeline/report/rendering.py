"""Rendering of the templates in this folder; every value is escaped unless it is already markup."""

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def render(template: str, **values: object) -> Markup:
    """Fill a template."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))  # noqa: S704  # autoescaped


def asset(name: str) -> str:
    """Return the text of a style sheet or script."""
    return (resources.files("pipeline.report") / "templates" / name).read_text(encoding="utf-8")
