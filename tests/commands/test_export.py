"""export: one file that says what the pipeline says, and a card beside it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from pipeline import heads
from pipeline.commands import export
from pipeline.core.errors import InputError, StateError
from pipeline.data import manifest
from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing
from pipeline.evaluation import runs
from pipeline.networks import backbones
from pipeline.serving.export import parity, prepare, requirements
from pipeline.stages import train
from tests import faults
from tests.conftest import CLASSES, REPOSITORY, SIZE, Project, lay_out
from tests.networks import exports
from tests.stages.spine import run, working_in

HEADS: dict[str, Any] = {"logreg": {"C": 1.0, "calibrate": "sigmoid"}, "knn": {"n_neighbors": 3}}
PLAN_TOLERANCE = 2e-3
"""A plan's stored predictions were made from a frozen part that was kept in half precision."""


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a project in which a head and a plan are trained; tests work in copies."""
    with working_in(tmp_path_factory.mktemp("spine")) as root:
        run(lay_out(root, 12), heads=HEADS, run={"heads": list(HEADS)})
        yield root


@pytest.fixture
def project(spine: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Put what was trained into the test's own folder; what is exported again is not computed again."""
    exports.remember(monkeypatch)
    shutil.copytree(spine, project.root, dirs_exist_ok=True)
    project.write(heads=HEADS, run={"heads": list(HEADS)})
    return project


def told(path: str) -> dict[str, Any]:
    found = {}
    for item in onnx.load(path).metadata_props:
        name = item.key.removeprefix("headswap.")
        found[name] = json.loads(item.value) if item.value[:1] in "[{" else item.value
    return found


def said(path: str, pixels: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(["probabilities"], {"images": pixels})[0]  # type: ignore[no-any-return]


def pixels(paths: list[str], path: str) -> np.ndarray:
    """Decode images as the file itself says."""
    framing = told(path)["framing"]
    shape = Framing(framing["size"], framing["crop"], framing["scaled_jpeg"])
    return np.stack([decoding.pixels(Path(one).read_bytes(), shape) for one in paths])


def stored(name: str) -> tuple[list[str], np.ndarray]:
    found, table = runs.read("tiny", name).predictions.of("test"), manifest.read()
    return [table.path[table.row_of()[image_id]] for image_id in found.image_id], found.probability


@pytest.mark.parametrize(("name", "tolerance"), [("logreg", 1e-4), ("knn", 1e-4), ("last", PLAN_TOLERANCE)])
def test_the_file_gives_the_test_images_their_stored_predictions(project: Project, name: str, tolerance: float) -> None:
    summary = export.main(project.write(), name, "out.onnx")
    paths, expected = stored(name)
    found = said("out.onnx", pixels(paths, "out.onnx"))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    for number, path in enumerate(paths[:2]):
        np.testing.assert_allclose(said("out.onnx", pixels([path], "out.onnx"))[0], found[number], atol=1e-5)
    assert summary.startswith("out.onnx, 0.0 MB, and out.md: differs from the pipeline by at most ")


def test_the_file_describes_its_input_and_its_origin(project: Project) -> None:
    export.main(project.write(), "logreg", "out.onnx")
    found = told("out.onnx")
    assert found["classes"] == list(CLASSES)
    assert found["input"] == f"images: uint8 (N, 3, {SIZE}, {SIZE}), RGB, channels first, 0 to 255"
    assert found["framing"] == {"size": SIZE, "crop": 1.0, "scaled_jpeg": False, "resample": "bicubic"}
    assert found["decision"] == {"rule": "most_probable"}
    assert found["calibration"] == "calibrated on validation images by sigmoid"
    assert found["settings"] == {"C": 1.0}
    stamp = runs.read("tiny", "logreg").stamp
    assert (
        found["sha256"].items()
        >= {**stamp.inputs, "models/tiny/logreg/model.skops": stamp.outputs["models/tiny/logreg/model.skops"]}.items()
    )
    (given,), (output,) = (getattr(onnx.load("out.onnx").graph, part) for part in ("input", "output"))
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == ["N", 3, SIZE, SIZE]
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["N", 3]
    assert str(Path(export.__file__).parent.parent).encode() not in Path("out.onnx").read_bytes()


def test_the_decision_rule_is_in_the_file(project: Project) -> None:
    export.main(project.write(compare={"costs": {"red": {"blue": 5}}}), "logreg", "out.onnx")
    weights = np.array(told("out.onnx")["decision"]["weights"])
    assert weights[2].tolist() == [-5, -1, 0]


@pytest.mark.parametrize("name", ["logreg", "last"])
def test_the_same_model_gives_the_same_bytes(project: Project, name: str) -> None:
    export.main(project.write(), name, "out.onnx")
    before = Path("out.onnx").read_bytes(), Path("out.md").read_bytes()
    exports.forget()
    export.main(project.write(), name, "out.onnx")
    assert (Path("out.onnx").read_bytes(), Path("out.md").read_bytes()) == before


def test_the_card_says_what_the_model_is_made_of_and_how_good_it_is(project: Project) -> None:
    export.main(project.write(), "logreg", "out.onnx")
    card, stamp = Path("out.md").read_text(), runs.read("tiny", "logreg").stamp
    verdict = json.loads(Path("reports/verdict.json").read_text())
    accuracy = next(one for one in verdict["results"] if one["name"] == "logreg")["test"]["accuracy"]
    for line in (
        "# Model card: tiny/logreg\n",
        "- classes, in the order of the columns: `blue`, `green`, `red`",
        "| `red` | 6 | 2 | 4 |",
        f"| accuracy | {accuracy['value']:.4f} | {accuracy['low']:.4f} to {accuracy['high']:.4f} |",
        "the probabilities are calibrated on validation images by sigmoid",
        "- decision: the most probable class",
        f"| `data/manifest.parquet` | `{stamp.inputs['data/manifest.parquet']}` |",
        "## What was not tested",
    ):
        assert line in card
    assert "keeps embeddings" not in card


def test_a_card_of_a_run_that_was_not_scored_says_so(project: Project) -> None:
    Path("reports/verdict.json").unlink()
    export.main(project.write(), "knn", "out.onnx")
    card = Path("out.md").read_text()
    assert "Not scored: reports/verdict.json has no result of tiny/knn as it is now" in card
    assert "this head keeps embeddings of training images, and so does the file" in card


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("out.pt", "FILE: got 'out.pt', expected a name that ends in .onnx"),
        ("no/out.onnx", "FILE: no/out.onnx: no folder no"),
        ("folder.onnx", "FILE: folder.onnx: is a folder"),
        ("README.onnx", "README.md: is not a model card; choose another name"),
    ],
)
def test_an_unsuitable_path_is_refused_at_once(project: Project, file: str, line: str) -> None:
    Path("folder.onnx").mkdir()
    Path("README.md").write_text("mine")
    with pytest.raises(InputError, match=line):
        export.main(project.write(), "nothing", file)


def test_a_suffix_may_be_in_capitals(project: Project) -> None:
    with pytest.raises(InputError, match="MODEL: got 'nothing'"):  # the next check: the file's name was right
        export.main(project.write(), "nothing", "out.ONNX")


def test_a_missing_package_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "NEEDED", ("onnx", "no-such-package"))
    with pytest.raises(InputError, match=r"export needs no-such-package: pip install 'headswap\[export\]'"):
        export.main(project.write(), "logreg", "out.onnx")


def test_a_head_without_a_converter_is_refused_before_the_backbone_is_read(project: Project) -> None:
    entry = {"kind": "sklearn_class", "class_name": "sklearn.semi_supervised.LabelSpreading"}
    params = project.write(heads={"spreading": entry})
    train.main(params, "tiny", "spreading")
    Path("tiny.pth").unlink()
    with pytest.raises(InputError, match="LabelSpreading: has no converter to ONNX; expected a head of one of"):
        export.main(params, "spreading", "out.onnx")


def test_an_altered_model_is_refused(project: Project) -> None:
    path = Path("models/tiny/last/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\0\1"[-1:])
    with pytest.raises(StateError, match="as stamped"):
        export.main(project.write(), "last", "out.onnx")


def test_a_file_with_other_predictions_is_not_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = heads.predict
    monkeypatch.setattr(parity.heads, "predict", lambda *args: real(*args)[:, ::-1])
    with pytest.raises(StateError, match=r"expected at most 0.0001; nothing was written"):
        export.main(project.write(), "logreg", "out.onnx")
    assert not list(Path().glob("*out*"))


def test_a_write_that_fails_leaves_no_partial_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    params = project.write()
    export.main(params, "knn", "out.onnx")
    old = Path("out.onnx").read_bytes()
    export.main(params, "logreg", "other.onnx")
    new = Path("other.onnx").read_bytes()
    for number in range(1, 12):
        with monkeypatch.context() as patch:
            failed = faults.fail_the_nth(number, patch)
            try:
                export.main(params, "logreg", "out.onnx")
            except OSError:
                assert failed
        assert Path("out.onnx").read_bytes() in (old, new)
        assert not list(Path().glob(".out*"))
        if not failed:
            break
    assert Path("out.onnx").read_bytes() == new


ORIENTED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""EXIF: turn a quarter."""


def pictures() -> dict[str, bytes]:
    """Return the same picture, half of it transparent where that can be, as files of many kinds."""
    noise = [Image.effect_noise((90, 60), 80) for _ in range(4)]
    colour, grey = Image.merge("RGB", noise[:3]), noise[3]
    veil = Image.linear_gradient("L").resize((90, 60))
    see_through = Image.merge("RGBA", (*noise[:3], veil))
    cut = colour.quantize(64)
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "oriented": (colour, "JPEG", {"exif": ORIENTED}),
        "colour": (colour, "PNG", {}),
        "grey": (grey, "PNG", {}),
        "black and white": (grey.convert("1"), "PNG", {}),
        "transparent": (see_through, "PNG", {}),
        "transparent and oriented": (see_through, "PNG", {"exif": ORIENTED}),
        "transparent grey": (Image.merge("LA", (grey, veil)), "PNG", {}),
        "one colour transparent": (colour, "PNG", {"transparency": colour.getpixel((0, 0))}),
        "transparent WebP": (see_through, "WEBP", {"lossless": True}),
        "palette": (cut, "PNG", {}),
        "transparent palette": (cut, "PNG", {"transparency": bytes(range(0, 256, 4))}),
        "transparent GIF": (cut, "GIF", {"transparency": 3}),
        "16 bits": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200 + 77), "PNG", {}),
        "16 bits in TIFF": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 250), "TIFF", {}),
        "CMYK": (colour.convert("CMYK"), "JPEG", {}),
    }
    found = {}
    for name, (image, kind, options) in kinds.items():
        image.save(stream := BytesIO(), kind, **options)
        found[name] = stream.getvalue()
    return found


def test_the_documented_python_predicts_as_predict_for_every_kind_of_file(project: Project) -> None:
    import pyarrow.parquet as pq

    from pipeline.commands import predict

    content = {"tiny": {**project.content["backbones"]["tiny"], "crop": 0.875}}
    run(project, backbones=content, run={"heads": ["logreg"], "plans": []})
    export.main(project.write(), "logreg", "cells.onnx")
    given = pictures()
    Path("new").mkdir()
    for name, picture in given.items():
        Path("new", name).write_bytes(picture)
    predict.main(project.write(), "logreg", [f"new/{name}" for name in given], out="out.parquet")
    shown = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/predict.md").read_text(), re.M | re.S)
    assert [len(block.splitlines()) <= 25 for block in shown] == [True, True]
    for name, row in zip(given, pq.read_table("out.parquet").to_pylist(), strict=True):
        Path("photo.jpg").write_bytes(given[name])
        fed = decoding.pixels(given[name], Framing(SIZE, 0.875))
        for block in shown:
            variables: dict[str, Any] = {}
            exec(block, variables)
            np.testing.assert_array_equal(variables["pixels"], fed, err_msg=name)
            assert variables["label"] == row["label"], name
            np.testing.assert_allclose(variables["found"], [row[f"p_{label}"] for label in CLASSES], atol=1e-4)


def test_preprocessing_for_the_file_is_that_of_predict(project: Project) -> None:
    from pipeline.core.stamps import sha256_file
    from pipeline.networks.frozen_pass import Item
    from pipeline.serving import forward as serving

    params = project.write(embed={"scaled_jpeg": True})
    metadata = {
        prepare.KEY: json.dumps(
            prepare.metadata_of(backbones.load("tiny", params.backbone("tiny")).framing_for(params.embed))
        )
    }
    picture = Path("large.jpg")
    Image.effect_noise((900, 700), 80).save(picture)
    item, framing = Item(picture, sha256_file(picture)), Framing(SIZE, 1.0, scaled_jpeg=True)
    np.testing.assert_array_equal(prepare.pixels(picture, metadata), serving.load(item, framing))


def test_preparing_an_image_loads_no_large_library() -> None:
    code = (
        "import sys, pipeline.serving.export.prepare; sys.exit(bool({'torch', 'sklearn', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
