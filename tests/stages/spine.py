"""All stages one after the other on a tiny project, called as functions."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from pipeline.networks import backbones
from pipeline.report import charts, embedding_map
from pipeline.stages import compare, curve, embed, finetune, lineage, prepare, quality, survey, thumbnails, train
from pipeline.verdict import schema
from tests.conftest import TINY, Project


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """Leave the charts out, which take longer than all stages together; tests/report and tests/browser draw them."""
    patch.setattr(charts, "draw", lambda draw, description: Markup(""))
    patch.setattr(embedding_map, "library", lambda: "")


@contextmanager
def working_in(root: Path) -> Iterator[Path]:
    """Work in a folder, for a whole file of tests, with the tiny backbone in the catalogue and no chart drawn."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
        undrawn(patch)
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(before)


def run(project: Project, **sections: Any) -> dict[str, Any]:
    params = project.write(**sections)
    prepare.main(params)
    thumbnails.main(params)
    for backbone in params.run.backbones:
        embed.main(params, backbone)
        survey.main(params, backbone)
        curve.main(params, backbone)
        for head in params.run.heads:
            train.main(params, backbone, head)
        for plan in params.run.plans:
            finetune.main(params, backbone, plan)
    quality.main(params)
    compare.main(params)
    lineage.main(params)
    return json.loads(schema.VERDICT.read_text())  # type: ignore[no-any-return]
