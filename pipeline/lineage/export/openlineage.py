"""OpenLineage events of dvc.lock: one COMPLETE event for each stage as it last ran, by the client's file transport.

The specification requires a time, which dvc.lock does not have: all events get the time at which dvc.lock was last
written or committed. All else that is not recorded is left out.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import git
from pipeline.core.locks import LOCK, Entry, Lock, Locked
from pipeline.lineage.export.exports import command, parameters, require

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

PRODUCER = "urn:x-headswap:lineage"


def write(lock: Lock, path: Path) -> None:
    """Append an event for every stage to a file, a line of JSON each; the same bytes for the same state."""
    transport = require("openlineage.client.transport.file")
    config = transport.FileConfig(
        log_file_path=str(path.absolute()), append=True
    )  # a relative path may look like a URL
    sink = transport.FileTransport(config)
    namespace, time = repository(), event_time()
    for name, stage in sorted(lock.items()):
        sink.emit(event(name, stage, namespace, time))


def event(name: str, stage: Locked, namespace: str, time: str) -> "RunEvent":
    """Return the event of one stage, with facets that the specification itself defines."""
    events, facets = require("openlineage.client.event_v2"), require("openlineage.client.facet_v2")
    run = facets.execution_parameters_run
    read = [run.ExecutionParameter(key=key, value=value) for key, value in parameters(stage)]
    kind = facets.job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DVC", producer=PRODUCER)
    code = facets.source_code_job.SourceCodeJobFacet("shell", command(stage), producer=PRODUCER)
    made: RunEvent = events.RunEvent(
        eventType=events.RunState.COMPLETE,
        eventTime=time,
        producer=PRODUCER,
        run=events.Run(
            runId=run_id(name, stage),
            facets={"executionParameters": run.ExecutionParametersRunFacet(read, producer=PRODUCER)} if read else {},
        ),
        job=events.Job(namespace, name, facets={"jobType": kind, "sourceCode": code}),
        inputs=[
            events.InputDataset(namespace, entry.path, facets=_version(entry), inputFacets=_statistics(entry, "input"))
            for _, entry in sorted(stage.deps.items())
        ],
        outputs=[
            events.OutputDataset(
                namespace, entry.path, facets=_version(entry), outputFacets=_statistics(entry, "output")
            )
            for _, entry in sorted(stage.outs.items())
        ],
    )
    return made


def run_id(name: str, stage: Locked) -> str:
    """Return an id that depends on the stage's entry in the lock alone."""
    entry = json.dumps([name, asdict(stage)], ensure_ascii=False, default=str)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}#{entry}"))


def event_time() -> str:
    """Return when dvc.lock was committed, or last written if it is not committed as it is."""
    seconds = None
    if LOCK.read_bytes() == git.file_at("HEAD", LOCK.as_posix()):
        seconds = git.text("log", "-1", "--format=%ct", "--", LOCK.as_posix())
    return datetime.fromtimestamp(int(seconds or LOCK.stat().st_mtime), UTC).isoformat()


def repository() -> str:
    """Return the name of the repository, for a namespace that is the same in all its clones."""
    url = (git.text("config", "--get", "remote.origin.url") or "").rstrip("/").removesuffix(".git")
    return re.split(r"[/:]", url)[-1] or Path.cwd().name


def _version(entry: Entry) -> Mapping[str, Any]:
    facets = require("openlineage.client.facet_v2")
    return {"version": facets.dataset_version_dataset.DatasetVersionDatasetFacet(entry.md5, producer=PRODUCER)}


def _statistics(entry: Entry, side: str) -> Mapping[str, Any]:
    facets = require("openlineage.client.facet_v2")
    facet = {
        "input": facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
        "output": facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    }[side]
    return {f"{side}Statistics": facet(size=entry.size, fileCount=entry.nfiles, producer=PRODUCER)}
