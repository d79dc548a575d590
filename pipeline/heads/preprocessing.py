"""What is done to features before a classifier sees them; a part of the head, fitted on its training rows alone."""

from collections.abc import Callable, Mapping

from pipeline.core.errors import unknown
from pipeline.heads.types import Classifier


def _standard() -> Classifier:
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return StandardScaler()


def _l2() -> Classifier:
    from sklearn.preprocessing import Normalizer  # noqa: PLC0415

    return Normalizer()


def _power() -> Classifier:
    from sklearn.preprocessing import PowerTransformer  # noqa: PLC0415

    return PowerTransformer()


SCALES: Mapping[str, Callable[[], Classifier] | None] = {
    "none": None,
    "standard": _standard,  # mean 0, variance 1
    "l2": _l2,  # every row of length 1
    "power": _power,  # Yeo & Johnson 2000: towards a normal distribution, then standardised
}


def steps(scale: str, components: float | None, whiten: bool, seed: int) -> list[Classifier]:
    """Return unfitted transformers.

    Args:
        scale: one of SCALES.
        components: of a principal component analysis after it: a number, or the share of variance to keep; None
            for all features as they are.
        whiten: divide the components by their standard deviation.
        seed: of the randomised solver.

    Raises:
        ValueError: if a value is none of these.

    """
    if scale not in SCALES:
        raise ValueError(unknown("scale", scale, SCALES))
    if whiten and components is None:
        raise ValueError("whiten: got true without components, expected components: the number of them")
    transform = SCALES[scale]
    chosen = [transform()] if transform else []
    if components is not None:
        from sklearn.decomposition import PCA  # noqa: PLC0415

        chosen.append(PCA(components, whiten=whiten, random_state=seed))
    return chosen
