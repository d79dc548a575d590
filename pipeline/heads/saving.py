"""A fitted head as files that hold no code: skops for what scikit-learn knows, safetensors for networks' weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError
from pipeline.core.imports import import_without
from pipeline.heads.types import Classifier

MODEL, WEIGHTS = "model.skops", "weights.safetensors"

# What a saved head may consist of beyond scikit-learn's and NumPy's plain types, which skops trusts by itself. The
# list is fixed here and never taken from a file.
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
    """Import skops without torch: it imports every package of scikit-learn, among them a shim that would load torch."""
    return import_without("skops.io", "sklearn.externals.array_api_compat.torch")


def save(folder: Path, model: Classifier) -> Sequence[Path]:
    """Write a fitted head without pickle, make sure that it will load, and return its files.

    Raises:
        StateError: if the head is made of parts that are not on the list of trusted ones.

    """
    path, weights = folder / MODEL, folder / WEIGHTS
    networks = list(_networks(model))
    learnt = [network.weights_ for network in networks]
    try:
        for network in networks:
            network.weights_ = {}
        with replacing(path) as temporary:
            _skops().dump(model, temporary)
            _require_trusted(path, temporary.read_bytes(), "saved")
    finally:
        for network, arrays in zip(networks, learnt, strict=True):
            network.weights_ = arrays
    if not networks:
        return [path]
    from safetensors.numpy import save_file  # noqa: PLC0415

    flat = {f"{number}.{name}": array for number, arrays in enumerate(learnt) for name, array in arrays.items()}
    with replacing(weights) as temporary:
        save_file(flat, temporary)
    return [path, weights]


def load(folder: Path, stamp: stamps.Stamp) -> Classifier:
    """Read a head whose bytes are the stamped ones; nothing in the files is executed.

    Raises:
        StateError: if a file is missing, altered, or holds types that no head of ours has.

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
    """Yield our own estimators, which keep what they learnt in `weights_`, wherever in a head they are."""
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
    strange = sorted(set(_skops().get_untrusted_types(data=content)) - set(TRUSTED))
    if strange:
        raise StateError(f"{path}: holds types that no head of ours has: {', '.join(strange)}; not {done}")
