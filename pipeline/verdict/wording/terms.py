"""How sentences word names and numbers."""


def metric_name(metric: str) -> str:
    """Return a metric's name in words."""
    return metric.replace("_", " ")


def percent(share: float) -> str:
    """Return a share in percent, with one decimal only where it is small."""
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}%"
