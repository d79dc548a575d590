"""Checks of the rows that a head is fitted on, and errors and warnings from the fit in words."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pipeline.core.errors import InputError, RefusedError, one_line
from pipeline.embeddings.mapped import MappedRows
from pipeline.heads.rows import Rows
from pipeline.heads.types import Features


@contextmanager
def name_head_in_errors(name: str) -> Iterator[None]:
    """Turn errors of a fit into InputErrors that name the head; RefusedError where its settings are at fault."""
    try:
        yield
    except InputError as error:
        where = "params.yaml"
        raise type(error)(
            *(line if line.startswith(where) else f"{where}: heads.{name}: {line}" for line in error.problems)
        ) from error
    except np.linalg.LinAlgError as error:  # a subclass of ValueError, but the numbers are at fault, not the settings
        raise InputError(f"params.yaml: heads.{name}: {one_line(error)}") from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise RefusedError(f"params.yaml: heads.{name}: {one_line(error)}") from error
    except (RuntimeError, MemoryError) as error:  # may succeed another time
        raise InputError(f"params.yaml: heads.{name}: {one_line(error)}") from error


def unconverged_and_others(caught: Sequence[warnings.WarningMessage]) -> tuple[int, Sequence[str]]:
    """Return the number of fits that did not converge, and every other warning once."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    others = {one_line(one.message) for one in caught if not issubclass(one.category, ConvergenceWarning)}
    return sum(issubclass(one.category, ConvergenceWarning) for one in caught), sorted(others)


def require_finite(X: Features) -> None:
    """Raise InputError with the rows of X (n, D) that hold NaN or infinity."""
    if isinstance(X, MappedRows):
        return  # checked block by block as it is read
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise InputError(
            f"features: row {shown}: got NaN or infinity, expected finite numbers; run `dvc repro --force`"
        )


def require_known_classes(train: Rows, validation: Rows) -> None:
    """Raise RefusedError with the validation classes that no training image has."""
    if absent := sorted(set(validation.y.tolist()) - set(train.y.tolist())):
        raise RefusedError(*(f"class {name!r}: in validation, but no training image has it" for name in absent))
