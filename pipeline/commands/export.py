"""export: one ONNX file of a head or a fine-tuned network, from pixels to probabilities, and its model card."""

from argparse import ArgumentParser
from pathlib import Path

from pipeline.core import options, stamps
from pipeline.core.atomic import replacing, write_text
from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.core.sections import Data
from pipeline.serving import output_path, trained_model

HELP = "write backbone, head and calibration as one ONNX file, and a model card beside it"


def arguments(parser: ArgumentParser) -> None:
    """Add the model and the file to write."""
    options.model(parser)
    parser.add_argument("file", metavar="FILE", help="the .onnx file to write")


def main(params: Params, model: str, file: str) -> str:
    """Export a run, compare the file's predictions with the pipeline's, and write it; return the summary line.

    Raises:
        InputError: if there is no such run, its head cannot be converted, the file cannot be written there, or a
            package is not installed.
        StateError: if the run is missing, altered or out of date, or the file's predictions differ.

    """
    path = Path(file)
    _require_place(path, params.data)
    from pipeline.serving.export import requirements  # noqa: PLC0415  # the other modules import optional packages

    requirements.require_installed()
    from pipeline.serving.export import card, parity  # noqa: PLC0415
    from pipeline.serving.export.onnx_model import OnnxExport  # noqa: PLC0415

    beside = path.with_suffix(".md")
    card.require_place(beside)
    ready = trained_model.read(params, model)
    exported = OnnxExport(ready, params)
    content = exported.content()
    found = parity.check(content, exported, ready)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    write_text(beside, card.text(path, stamps.sha256_bytes(content), exported, ready, found))
    return f"{path}, {len(content) / 1e6:.1f} MB, and {beside}: {found}"


def _require_place(path: Path, data: Data) -> None:
    if path.suffix.lower() != ".onnx":
        raise InputError(f"FILE: got {path.name!r}, expected a name that ends in .onnx")
    output_path.require(path, data, "FILE")
