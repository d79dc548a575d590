"""Fitted heads as files that hold no code: skops for scikit-learn's classifiers, safetensors for network weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError
from pipeline.core.imports import import_without
from pipeline.heads.types import Classifier

MODEL, WEIGHTS = "model.skops", "weights.safetensors"

# The types that a saved head may hold besides those of scikit-learn and NumPy that skops trusts by default. The list
# is fixed here and never taken from a file.
TRUSTED = (
    "pipeline.heads.calibration.Calibrated",
    "pipeline.heads.calibration.Uncalibrated",
    "pipeline.heads.ensembles.Stacking",
    "pipeline.heads.ensembles.Voting",
    "pipeline.heads.logistic.Logistic",
    "pipeline.networks.mlp.MLPHead",
    "pipeline.networks.streaming.StreamingHead",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)


def _skops() -> Any:  # noqa: ANN401  # a module without types
    """Import skops without torch: skops imports all of scikit-learn, which has a shim that would load torch."""
    return import_without("skops.io", "sklearn.externals.array_api_compat.torch")


def save(folder: Path, model: Classifier) -> Sequence[Path]:
    """Write a fitted head without pickle and return its files; StateError if it holds types that are not trusted."""
    path, weights = folder / MODEL, folder / WEIGHTS
    networks = list(_networks(model))
    weights_of = [network.weights_ for network in networks]
    try:
        for network in networks:
            network.weights_ = {}
        with replacing(path) as temporary:
            _skops().dump(model, temporary)
            _require_trusted(path, temporary.read_bytes(), "saved")
    finally:
        for network, arrays in zip(networks, weights_of, strict=True):
            network.weights_ = arrays
    if not networks:
        return [path]
    from safetensors.numpy import save_file  # noqa: PLC0415

    flat = {f"{number}.{name}": array for number, arrays in enumerate(weights_of) for name, array in arrays.items()}
    with replacing(weights) as temporary:
        save_file(flat, temporary)
    return [path, weights]


def load(folder: Path, stamp: stamps.Stamp) -> Classifier:
    """Read a head without executing anything in its files.

    Raises:
        StateError: if a file is missing, differs from its stamp, or holds types that are not trusted.

    """
    path, weights = folder / MODEL, folder / WEIGHTS
    content = stamps.check(path, stamp)
    _require_trusted(path, content, "loaded")
    model = _skops().loads(content, trusted=list(TRUSTED))
    networks = list(_networks(model))
    if networks:
        from safetensors.numpy import load as load_arrays  # noqa: PLC0415

        for key, array in load_arrays(stamps.check(weights, stamp)).items():
            number, name = key.split(".", 1)
            networks[int(number)].weights_[name] = array
    return model


def _networks(part: object) -> Iterator[Any]:
    """Yield the networks anywhere in a head: Headswap's own estimators, which keep their arrays in `weights_`."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list | tuple):
        for one in part:
            yield from _networks(one)
    elif hasattr(part, "weights_"):
        yield part
    elif hasattr(part, "get_params"):
        yield from _networks(list(vars(part).values()))


def _require_trusted(path: Path, content: bytes, done: str) -> None:
    if untrusted := sorted(set(_skops().get_untrusted_types(data=content)) - set(TRUSTED)):
        raise StateError(f"{path}: holds types that no head of ours has: {', '.join(untrusted)}; not {done}")
