"""Accuracy of heads and plans over seeded splits, and simulations of the verdict's statistics, as tables.

Hours in all, hence not in `make bench`.

Only elpv was looked at while the catalogue and these settings were chosen. "Refitted" heads train on training and
validation images, as the published probe protocol does.
"""

import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from benchmarks import groups, labels
from benchmarks.clone import REPOSITORY
from pipeline.commands import demo
from pipeline.core.params import Params
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import metrics
from pipeline.stages import embed, finetune, prepare, train

BACKBONE = "efficientnet_lite0"
RECIPE = {"image_size": 320, "layers": ["block2", "block4", "block5", "top"], "pooling": ["average", "max"]}
SEEDS = range(5)
SVM = {"C": 10, "gamma": 0.0001}
VOTERS = {"logreg": {"C": 0.001}, "rbf_svm": SVM, "mlp": {"hidden": 256, "weight_decay": 0.1}}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "logreg": {"C": "sweep", "search": "validation"},
    "ridge": {"alpha": [1000, 10000]},
    "lda": {},
    "linear_svm": {"C": [0.00001, 0.0001]},
    "rbf_svm": {"C": [3, 10], "gamma": [0.00003, 0.0001]},
    "rbf_svm_refitted": {"kind": "rbf_svm", **SVM, "search": "validation"},
    "nystroem_svm": {"C": [0.1, 1], "gamma": 0.0001},
    "knn": {"n_neighbors": [5, 10], "weights": "distance"},
    "nearest_mean": {},
    "random_forest": {},
    "extra_trees": {},
    "gradient_boosting": {"max_features": 0.05},
    "mlp": {"hidden": 256, "weight_decay": 0.1},
    "streaming_linear": {},
    "streaming_mlp": {},
    "sklearn_class": {"class_name": "sklearn.naive_bayes.GaussianNB"},
    "voting": {"members": VOTERS},
    "voting_refitted": {"kind": "voting", "members": VOTERS, "search": "validation"},
    "stacking": {"members": {"logreg": {"C": 0.001}, "rbf_svm": SVM, "extra_trees": {}}, "folds": 3},
}
PLANS = ("last_blocks", "from_block3")
"""Of params.yaml, those that take minutes; the first one also with the stored frozen part in float32."""


def elpv(folder: Path) -> dict[str, Any]:
    """Lay the demo's images out; return what params.yaml says of them."""
    settings = {"data": {"source": "elpv", "path": str(folder)}, "split": split(0.1, 0.25)}
    demo.main(params_of(settings, seed=0))
    return settings


def digits(folder: Path) -> dict[str, Any]:
    """Write scikit-learn's 1,797 digits of 8 x 8 pixels as images."""
    data = load_digits()
    _write(folder, (data.images / 16 * 255).round().astype(np.uint8), data.target)
    return {"data": {"source": "image_folder", "path": str(folder)}, "split": split(0.1, 0.25)}


def fashion_mnist(folder: Path) -> dict[str, Any]:
    """Write 12,000 images of Fashion-MNIST: 10,000 to train on, a tenth of them for validation, and 2,000 to test."""
    source = Path("/usr/share/datasets/fashion-mnist")
    if not source.is_dir():
        sys.exit(f"study: {source}: no such folder; apt-get install dataset-fashion-mnist")
    raw = gzip.decompress((source / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((source / "train-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    _write(folder, images[:12_000], np.frombuffer(labels, np.uint8, offset=8)[:12_000])
    return {
        "data": {"source": "image_folder", "path": str(folder)},
        "split": split(1 / 12, 1 / 6),
        # The demo's recipe: of 28 x 28 pixels more hardly sees more, and twenty heads on 9,000 rows take long enough.
        "backbones": {BACKBONE: {"image_size": 224}},
    }


def finetuned(folder: Path) -> dict[str, Any]:
    """Fine-tune on the demo's images, at the size that the plans of params.yaml use."""
    catalogue = YAML(typ="safe").load(REPOSITORY / "params.yaml")["plans"]
    plans = {name: catalogue[name] for name in PLANS}
    plans[f"{PLANS[0]}_float32"] = {**catalogue[PLANS[0]], "cached_dtype": "float32"}
    return {**elpv(folder.with_name("elpv")), "backbones": {BACKBONE: {"image_size": 224}}, "heads": {}, "plans": plans}


DATA: Mapping[str, Callable[[Path], dict[str, Any]]] = {"elpv": elpv, "digits": digits, "fashion_mnist": fashion_mnist,
        "finetuned": finetuned}  # fmt: skip


def split(val: float, test: float) -> dict[str, Any]:
    """Return the split section: stratified, with the seed of the study."""
    return {"method": "stratified", "val": val, "test": test}


def _write(folder: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def params_of(settings: Mapping[str, Any], seed: int) -> Params:
    """Return the whole parameters of one split."""
    return Params.model_validate({
        "seed": seed,
        "embed": {"runtime": "openvino"},
        "selection": {"metric": "accuracy", "folds": 3},
        "curve": {"heads": {}, "plans": []},
        "compare": {},
        "run": {"backbones": [BACKBONE], "heads": ["logreg"], "plans": []},
        "backbones": {BACKBONE: RECIPE},
        "heads": HEADS,
        **settings,
    })  # fmt: skip


def study(name: str, seeds: Iterator[int]) -> Iterator[tuple[int, str, float, float]]:
    """Yield seed, head or plan, test accuracy and seconds, in a folder of its own that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        settings = DATA[name](Path("data/raw") / name)
        for seed in seeds:
            params = params_of(settings, seed)
            prepare.main(params)
            embed.main(params, BACKBONE)
            stages = dict.fromkeys(params.heads, train.main) | dict.fromkeys(params.plans, finetune.main)
            for run, stage in stages.items():
                start = time.perf_counter()
                stage(params, BACKBONE, run)
                accuracy = metrics.score(runs.read(BACKBONE, run).predictions.of("test"))["accuracy"]
                yield seed, run, accuracy, time.perf_counter() - start
        os.chdir("/")


def main(names: list[str]) -> int:
    """Print each result as it comes, then each data set's table in Markdown."""
    for name in names or (*DATA, "groups", "labels"):
        if name in ("groups", "labels"):
            print(groups.table(1000) if name == "groups" else labels.table(), flush=True)
            continue
        found: dict[str, list[tuple[float, float]]] = {}
        seeds = SEEDS[:3] if name == "finetuned" else SEEDS
        for seed, run, accuracy, seconds in study(name, iter(seeds)):
            found.setdefault(run, []).append((accuracy, seconds))
            print(f"{name} seed {seed} {run}: {100 * accuracy:.2f}% in {seconds:.0f} s", file=sys.stderr, flush=True)
        print(f"\n| {name}: run | mean of {len(seeds)} splits | spread | lowest | highest | seconds |")
        print("|---|---|---|---|---|---|")
        for run, results in sorted(found.items(), key=lambda item: -float(np.mean([one for one, _ in item[1]]))):
            values, seconds = np.array(results).T
            low, high = 100 * values.min(), 100 * values.max()
            spread, mean = 100 * values.std(ddof=1), 100 * values.mean()
            print(f"| {run} | {mean:.1f} | {spread:.1f} | {low:.1f} | {high:.1f} | {seconds.mean():.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
