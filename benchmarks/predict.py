"""New images: how fast they are predicted beside the frozen pass, and what an ONNX file says of them."""

import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pyarrow.parquet as pq

from benchmarks.clone import Clone
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline.commands import demo, export, predict
from pipeline.core import params
from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing
from pipeline.evaluation import runs
from pipeline.stages import embed, finetune, prepare, train

BACKBONE = "efficientnet_lite0"
NEW, PARITY, TIMES, FRAMING = 1_000, 200, 3, Framing(224, 1.0)
HEADS: Mapping[str, Mapping[str, Any]] = {
    "logreg": {"C": 0.0003, "calibrate": "temperature"},
    "ridge": {"alpha": 1000},
    "lda": {},
    "linear_svm": {"C": 0.0001, "calibrate": "isotonic"},
    "rbf_svm": {"C": 3, "gamma": 0.0003},
    "nystroem_svm": {"C": 1, "gamma": 0.0003},
    "knn": {"n_neighbors": 10, "weights": "distance"},
    "nearest_mean": {},
    "random_forest": {"n_estimators": 300, "min_samples_leaf": 3},
    "extra_trees": {"n_estimators": 300, "calibrate": "sigmoid"},
    "gradient_boosting": {"max_features": 0.1},
    "mlp": {"hidden": 64, "weight_decay": 0.01},
    "streaming_linear": {},
    "streaming_mlp": {},
    "voting": {"members": {"logreg": {"C": 0.001}, "rbf_svm": {"C": 3, "gamma": 0.0003}}},
    "stacking": {"members": {"logreg": {"C": 0.001}, "extra_trees": {}}},
    "naive_bayes": {"kind": "sklearn_class", "class_name": "sklearn.naive_bayes.GaussianNB"},
}


def measure() -> Iterator[Figure]:
    """Train on most of the demo's images, and take the others for new ones."""
    with tempfile.TemporaryDirectory() as folder:
        known, new = _dealt()
        trained = _clone(Path(folder, "trained"), known)
        os.chdir(trained.root)
        try:
            (Path(folder, "new")).mkdir()
            paths = [shutil.copy(demo.package_data() / name, Path(folder, "new")) for name in new]
            stated = params.load()
            prepare.main(stated)
            embed.main(stated, BACKBONE)
            for head in HEADS:
                train.main(stated, BACKBONE, head)
            finetune.main(stated, BACKBONE, "last_blocks")
            yield from _stored(stated)
            yield from _speed(trained, _clone(Path(folder, "embedded"), new), Path(folder, "new"))
            os.chdir(trained.root)
            for name in [*HEADS, "last_blocks"]:
                yield from _parity(stated, name, [Path(path) for path in paths[:PARITY]])
        finally:
            os.chdir(Path(__file__).parent.parent)


def _dealt() -> tuple[list[str], list[str]]:
    """Return the names of the images to train on, and of those that are new."""
    names = [line.split()[0] for line in (demo.package_data() / "labels.csv").read_text().splitlines()]
    random.Random(0).shuffle(names)  # noqa: S311  # no secret
    return names[NEW:], names[:NEW]


def _clone(root: Path, names: Sequence[str]) -> Clone:
    """Make a clone in which these images are the data, and heads are fitted without a search."""
    clone, wanted, source = Clone(root), set(names), demo.package_data()
    target = root / "data/raw/elpv"
    (target / "images").mkdir(parents=True)
    lines = [line for line in (source / "labels.csv").read_text().splitlines() if line.split()[0] in wanted]
    for name in names:
        shutil.copy(source / name, target / name)
    (target / "labels.csv").write_text("\n".join(lines) + "\n")
    entries = {name: dict(entry) for name, entry in HEADS.items()}
    clone.set(**{"heads": entries, "run.heads": list(HEADS), "plans.last_blocks.epochs": 1})
    return clone


def _stored(stated: params.Params) -> Iterator[Figure]:
    """Predict the test images from their files, and compare with what the stages stored."""
    differing = 0
    for name in HEADS:
        differing += int((_predicted(stated, name, _test_paths(stated, name)) != _test(name)).sum())
    yield at_most(
        f"probabilities of {len(HEADS)} heads on test images that differ from the stored ones", differing, "", 0
    )
    plan = np.abs(_predicted(stated, "last_blocks", _test_paths(stated, "last_blocks")) - _test("last_blocks"))
    yield at_most(
        "last_blocks: largest difference from the stored predictions (openvino, PyTorch)", plan.max(), "", 0.01
    )


def _test(name: str) -> Any:  # noqa: ANN401  # an array
    return runs.read(BACKBONE, name).predictions.of("test").probability


def _test_paths(stated: params.Params, name: str) -> list[Path]:
    return [stated.data.path / one for one in runs.read(BACKBONE, name).predictions.of("test").image_id]


def _predicted(stated: params.Params, name: str, paths: Sequence[Path]) -> Any:  # noqa: ANN401  # an array
    predict.main(stated, name, [str(path) for path in paths], out="out.parquet")
    table = pq.read_table("out.parquet")
    return np.column_stack([table[column] for column in table.column_names if column.startswith("p_")])


def _speed(trained: Clone, embedded: Clone, new: Path) -> Iterator[Figure]:
    """Time both on the same images in turn, with empty caches: as functions, then as commands that import it all."""
    predicting = ("headswap", "predict", "logreg", str(new), "--out", "out.csv")
    embedding = ("headswap", "embed", "--backbone", BACKBONE)
    embedded.run("headswap", "prepare")
    embedded.run(*embedding)  # exports the network
    rates: dict[str, list[float]] = {"embed": [], "predict": []}
    for _ in range(TIMES):
        for name, clone in (("embed", embedded), ("predict", trained)):
            os.chdir(clone.root)
            stated = params.load()
            shutil.rmtree(clone.root / ".headswap/embeddings")
            work = partial(embed.main, stated, BACKBONE)
            if name == "predict":
                work = partial(predict.main, stated, "logreg", [str(new)], "out.csv")
            rates[name].append(NEW / seconds(work))
    detail = " and ".join(f"{name} {max(values):.0f} images/s" for name, values in rates.items())
    ratios = [mine / its for mine, its in zip(rates["predict"], rates["embed"], strict=True)]
    yield at_least(
        f"predict, files to table, of embed, files to matrix ({detail})", statistics.median(ratios), "x", 0.9
    )
    for clone, command in ((embedded, embedding), (trained, predicting)):
        shutil.rmtree(clone.root / ".headswap/embeddings")
        yield Figure(
            f"headswap {command[1]}, {NEW:,} images, imports included", seconds(partial(clone.run, *command)), "s"
        )
    yield Figure(f"headswap predict, the same {NEW:,} images again", seconds(partial(trained.run, *predicting)), "s")


def _parity(stated: params.Params, name: str, paths: Sequence[Path]) -> Iterator[Figure]:
    """Compare an ONNX file with `predict` on new images, in ONNX Runtime as well and as the demo is pinned."""
    export.main(stated, name, "out.onnx")
    pixels = np.stack([decoding.pixels(path.read_bytes(), FRAMING) for path in paths])
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": pixels})
    same = {"runtime": "onnxruntime", "cache": Path(".headswap/onnxruntime")}
    alike = stated.model_copy(update={"embed": stated.embed.model_copy(update=same)})
    told = f"{name}: ONNX file against predict on {len(paths)} new images, largest difference"
    for given, bound in ((alike, 1.0), (stated, None)):
        difference = 1e4 * float(np.abs(found - _predicted(given, name, paths)).max())
        of = f"{told}, embed.runtime {given.embed.runtime}"
        yield at_most(of, difference, "1e-4", bound) if bound else Figure(of, difference, "1e-4")
