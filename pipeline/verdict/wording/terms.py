"""How sentences word names and numbers."""


def metric_name(metric: str) -> str:
    """Return a metric's name in words."""
    return metric.replace("_", " ")


def percent(share: float) -> str:
    """Return a share in percent, with one decimal only where it is small."""
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}%"


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `several` is the plural where that is not `one` with an s.

    >>> counted(1, "class", "classes"), counted(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
