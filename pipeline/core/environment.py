"""What a result was made with: code commit, library versions, machine."""

import os
import platform
from importlib import metadata
from typing import Any

from pipeline.core import git, systems

# The libraries that decide numbers.
LIBRARIES = ("torch", "torchvision", "timm", "openvino", "onnxruntime", "numpy", "scipy", "scikit-learn", "h5py",
             "pyarrow", "pillow", "dvc")  # fmt: skip
# What the commit speaks for: the code, and what tells it what to do.
CODE = ("pipeline", "params.yaml", "dvc.yaml")


def describe() -> dict[str, Any]:
    """Return commit, whether the code differs from it, versions and machine; unknown things are left out."""
    return {
        **_commit(),
        "python": platform.python_version(),
        "libraries": versions(),
        "machine": {"system": platform.system(), "processor": systems.processor(), "cores": os.cpu_count()},
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that decide numbers, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> dict[str, Any]:
    commit = git.commit_of("HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "uncommitted_changes": bool(git.text("status", "--porcelain", "--", *CODE))}
