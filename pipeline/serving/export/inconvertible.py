"""The error for a part of a head that cannot be converted, raised before anything is computed."""

from typing import Any

from pipeline.core.errors import InputError
from pipeline.heads import HEADS


class InconvertibleError(InputError):
    """A part of a head cannot be converted to ONNX."""


def inconvertible(part: object, why: str = "") -> InconvertibleError:
    """Return the error for a part of a head, with the heads that can be exported."""
    others = ", ".join(name for name in HEADS if name != "sklearn_class")
    return InconvertibleError(
        f"{type(part).__name__}{why}: has no converter to ONNX; expected a head of one of the kinds {others}, or a "
        "classifier of scikit-learn that skl2onnx converts"
    )


def require(part: Any, **settings: object) -> None:  # noqa: ANN401  # scikit-learn has no types
    """Raise InconvertibleError unless a part has these settings."""
    for name, value in settings.items():
        if getattr(part, name) != value:
            raise inconvertible(part, f" with {name}={getattr(part, name)}")
