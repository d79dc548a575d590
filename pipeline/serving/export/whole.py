"""Backbone and head, or a fine-tuned network, in one ONNX file that says what it takes and where it comes from."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

from pipeline.core import stamps
from pipeline.core.params import Params
from pipeline.data.images.decoding import MAX_PIXELS, Framing
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.networks import backbones, frozen_pass, onnx_export
from pipeline.serving.export import heads, prepare
from pipeline.serving.export.graph import OPSET, behind
from pipeline.serving.trained import Trained


class Exported:
    """An ONNX model of a run, and what lies in the middle of it.

    Args:
        trained: the run.
        params: what its embeddings were made by.

    Raises:
        InputError: if a part of the head has no form in ONNX, before anything is computed, or the file would be too
            large.
        StateError: if params.yaml or the code state another recipe by now.

    """

    features: bytes = b""
    """A model from images to a head's features; a fine-tuned network has none."""

    def __init__(self, trained: Trained, params: Params) -> None:
        if trained.network is not None:
            self.framing, network = trained.network.framing, trained.network.network
            self.whole = _plain(onnx_export.any_batch(network, self.framing.size, "probabilities", OPSET))
        else:
            graph = heads.graph_of(trained.head)  # first, for it is quick to fail
            loaded, settings = backbones.load(trained.run.backbone, params.backbone(trained.run.backbone)), params.embed
            frozen_pass.require_recipe(trained.embedded.recipe, loaded, settings, trained.run.backbone)
            self.framing = loaded.framing_for(settings)
            rounded = onnx_export.RoundedBackbone(loaded.network, settings.dtype)
            backbone = _plain(onnx_export.any_batch(rounded, self.framing.size, "features", OPSET))
            self.features = backbone.SerializeToString()
            self.whole = behind(backbone, graph, len(trained.classes))
        onnx.helper.set_model_props(self.whole, _properties(trained, params, self.framing))
        self.whole.producer_name, self.whole.producer_version = "headswap", metadata.version("headswap")

    def content(self) -> bytes:
        """Return the file's bytes: the same for the same model and libraries."""
        return bytes(self.whole.SerializeToString(deterministic=True))


def _plain(content: bytes) -> onnx.ModelProto:
    """Read a model, and leave out what the exporter tells of the code that it was made by, paths among it."""
    model = onnx.load_from_string(content)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model


def framing_steps(framing: Framing) -> list[str]:
    """Say what becomes of an image file before the graph, step by step."""
    scaled = "a JPEG may be scaled down while it is decoded, to no less than the size needed; " * framing.scaled_jpeg
    return [
        f"decode the first frame ({scaled}at most {MAX_PIXELS:,} pixels) and turn it upright by its EXIF orientation",
        "make it 8-bit grey or RGB: 12 and 16-bit grey scaled, transparency over white, colour profiles ignored",
        f"resize the shorter side to {framing.size} / {framing.crop:g} and cut the central {framing.size} x "
        f"{framing.size} square, both in one resampling: Pillow's BICUBIC, antialiased, `box` with fractions",
        "see grey three times; no normalisation: that is part of the graph",
    ]


def lineage(trained: Trained) -> dict[str, str]:
    """Return what the model was made from: name -> sha256."""
    run, recipe = trained.run, trained.embedded.recipe
    model = runs.folder(run.backbone, run.name).as_posix()
    at = runs.stamp_path(run.backbone, run.name)
    return {
        **run.stamp.inputs,
        f"weights of {recipe['backbone']}": str(recipe["weights_sha256"]),
        **{name: sha256 for name, sha256 in run.stamp.outputs.items() if name.startswith(f"{model}/")},
        at.as_posix(): stamps.sha256_file(at),
    }


def decision(trained: Trained) -> dict[str, Any]:
    """Return the rule: the class with the largest of probabilities @ weights, or just the largest probability."""
    if trained.rule is None:
        return {"rule": "most_probable"}
    chosen = {"rule": "argmax of probabilities @ weights", "weights": trained.rule.weights.tolist()}
    return chosen if trained.rule.threshold is None else {**chosen, "threshold": trained.rule.threshold}


def _properties(trained: Trained, params: Params, framing: Framing) -> dict[str, str]:
    run, size = trained.run, framing.size
    found: dict[str, Any] = {
        "classes": list(trained.classes),
        "input": f"images: uint8 (N, 3, {size}, {size}), RGB, channels first, 0 to 255",
        "output": f"probabilities: float32 (N, {len(trained.classes)}), one column per class",
        "framing": prepare.told(framing),
        "preprocessing": framing_steps(framing),
        "decision": decision(trained),
        "calibration": trained.calibration(),
        "model": run.id,
        "kind": run.kind,
        "settings": run.stamp.facts["params"],
        "metric": params.selection.metric,
        "sha256": lineage(trained),
        "headswap_version": metadata.version("headswap"),
    }
    if run.kind == "head":
        found["recipe_sha256"] = stamps.sha256_json(trained.embedded.recipe)
        found["features"] = f"rounded to {params.embed.dtype}, as {Path(matrix.matrix_path(run.backbone))} holds them"
    return {
        f"headswap.{name}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in found.items()
    }
