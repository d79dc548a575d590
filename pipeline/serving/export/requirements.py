"""The packages that only `headswap export` needs."""

from importlib import metadata

from pipeline.core.errors import InputError

NEEDED = ("onnx", "onnxruntime", "onnxscript", "skl2onnx")


def require_installed() -> None:
    """Raise InputError unless the packages that write and check ONNX files are installed."""
    for name in NEEDED:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise InputError(f"export needs {name}: pip install 'headswap[export]'") from error
