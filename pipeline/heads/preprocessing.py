"""Preprocessing of features: a part of the head, fitted on its training rows alone."""

from collections.abc import Mapping

from pipeline.core.errors import unknown
from pipeline.heads.types import Classifier

SCALES: Mapping[str, str | None] = {
    "none": None,
    "standard": "StandardScaler",  # mean 0, variance 1
    "l2": "Normalizer",  # every row has length 1
    "power": "PowerTransformer",  # Yeo & Johnson 2000: towards a normal distribution, then standardised
}
"""scale -> class in sklearn.preprocessing"""


def steps(scale: str, components: float | None, whiten: bool, seed: int) -> list[Classifier]:
    """Return unfitted transformers.

    Args:
        scale: one of SCALES.
        components: how many principal components to keep after scaling, or the share of variance; None: no components.
        whiten: whether to divide the components by their standard deviations.
        seed: of the randomised solver.

    Raises:
        ValueError: if a value is not one of these.

    """
    if scale not in SCALES:
        raise ValueError(unknown("scale", str(scale), SCALES))
    if whiten and components is None:
        raise ValueError("whiten: got true without components, expected components: their number")
    transformers = []
    if class_name := SCALES[scale]:
        from sklearn import preprocessing  # noqa: PLC0415

        transformers.append(getattr(preprocessing, class_name)())
    if components is not None:
        from sklearn.decomposition import PCA  # noqa: PLC0415

        transformers.append(PCA(components, whiten=whiten, random_state=seed))
    return transformers
