"""The record of the chain."""

import json
from pathlib import Path

import pytest

from pipeline.core.errors import StateError
from pipeline.evaluation import runs
from pipeline.lineage import chain
from pipeline.stages import lineage
from tests.conftest import Project
from tests.stages.spine import run


class TestLineage:
    def test_recording_refuses_what_its_stamp_does_not_know(self, finished: Project) -> None:
        Path("predictions/tiny/logreg.parquet").write_bytes(b"tampered")
        with pytest.raises(StateError, match=r"predictions/tiny/logreg.parquet: expected sha256 .* as stamped"):
            lineage.main(finished.write())

    def test_recording_refuses_a_head_trained_on_other_embeddings(self, finished: Project) -> None:
        stamp = runs.stamp_path("tiny", "logreg")
        content = json.loads(stamp.read_text())
        content["inputs"]["data/embeddings/tiny.h5"] = "0" * 64
        stamp.write_text(json.dumps(content))
        with pytest.raises(StateError, match="tiny.h5: expected sha256 0000"):
            lineage.main(finished.write())

    def test_recording_refuses_a_verdict_on_runs_that_are_no_longer_listed(self, project: Project) -> None:
        run(project, run={"heads": ["logreg", "knn"]})
        params = project.write(run={"heads": ["knn"]})
        with pytest.raises(StateError, match="logreg.parquet: expected a file of a run listed in params"):
            lineage.main(params)

    def test_the_chain_leads_from_the_report_back_to_weights_and_manifest(self, finished: Project) -> None:
        nodes = chain.read().nodes
        reached, todo = set(), ["reports/index.html"]
        while todo:
            name = todo.pop()
            reached.add(name)
            todo += nodes[name].made_from
        assert {"reports/verdict.json", "predictions/tiny/last.parquet", "data/embeddings/tiny.h5", "tiny.pth",
                "data/manifest.parquet"} <= reached  # fmt: skip
