"""compare: all runs -> reports/: verdict, page, tables for DVC and a stamp; the only stage that scores the test split.

With two runs named it compares just these, in the terminal, and writes nothing.
"""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.core import options, stamps
from pipeline.core.errors import InputError, StateError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import curves, runs, surveys
from pipeline.evaluation.scoring import condensed
from pipeline.quality import files
from pipeline.report import page, plots, terminal
from pipeline.report.evidence import Evidence
from pipeline.verdict import concerns, judge, schema
from pipeline.verdict.judge import Background
from pipeline.verdict.schema import Verdict
from pipeline.verdict.scored import score

HELP = (
    "stage: score every run on the test split, write the verdict and the report; with two runs named: compare "
    "these here and now, write nothing"
)


def arguments(parser: ArgumentParser) -> None:
    """Offer to compare two runs."""
    parser.add_argument("run", nargs="*", metavar="RUN", help=options.MODEL)


def main(params: Params, run: Sequence[str] = ()) -> str:
    """Judge the runs that params lists, and no others that may lie about; return the summary line."""
    if run:
        return _two(params, run)
    failed = runs.failed(params.runs())
    with ThreadPoolExecutor(2) as pool:  # very many probabilities take minutes to read; two runs at a time fit in 2 GB
        left = [run for run in params.runs() if run not in failed]
        finished = list(pool.map(lambda run: runs.read(run[0], run[1], condensed.read), left))
    if not any(run.kind == "head" for run in finished):
        raise StateError("no head was trained, nothing to compare with", *failed.values())
    backbones = params.run.backbones
    embedded = {backbone: stamps.read(matrix.stamp_path(backbone)) for backbone in backbones}
    background = Background(
        frozen={backbone: matrix.read_cost(backbone) for backbone in backbones},
        skipped={backbone: skipped.read(backbone) for backbone in backbones},
        drawn={backbone: curves.read(backbone) for backbone in backbones},
        surveys={backbone: surveys.read(backbone) for backbone in backbones},
    )
    table, found = manifest.read(), files.read()
    scored = score(finished, params, table.group_of())
    judged = _with(failed, judge.judge(scored, background, params))
    judged = concerns.beside(judged, scored.test[0].image_id, table, found)
    evidence = Evidence(judged, finished, scored.decided, table, background.surveys, embedded, thumbnails.read(), found)
    schema.write(judged)
    tables = plots.write(judged)
    page.write(evidence)
    made = stamps.hashes([schema.VERDICT, schema.SCORES, schema.PAGE, *tables])
    shown = {**stamps.read(manifest.STAMP).outputs, **stamps.read(thumbnails.STAMP).outputs}
    shown |= stamps.hashes([files.FINDINGS])
    stamps.write(schema.STAMP, stamps.Stamp("compare", made, {**judged.inputs, **shown}))
    return concerns.summary(judged.sentence, judged.notes, schema.PAGE)


def _with(failed: Mapping[tuple[str, str], str], judged: Verdict) -> Verdict:
    """Name the runs that failed, and the files that say so."""
    if not failed:
        return judged
    named = {"/".join(run): reason for run, reason in failed.items()}
    told = stamps.hashes(runs.stamp_path(*run) for run in failed)
    sentence = f"{judged.sentence} Not judged, for it failed: {', '.join(named)}."
    return replace(judged, sentence=sentence, failed=named, inputs={**judged.inputs, **told})


def _two(params: Params, named: Sequence[str]) -> str:
    if len(named) != 2:
        got = "1 run" if len(named) == 1 else f"{len(named)} runs"
        raise InputError(f"RUN: got {got}, expected two, or none to write the report")
    first, second = (runs.find(name, params, "RUN", condensed.read) for name in named)
    if first.id == second.id:
        raise InputError(f"RUN: got {first.id} twice, expected two different runs")
    with (
        runs.made_again_by_dvc(params, first.backbone, first.name),
        runs.made_again_by_dvc(params, second.backbone, second.name),
    ):
        frozen = matrix.read_cost(first.backbone), matrix.read_cost(second.backbone)
        return terminal.compared(score([first, second], params, manifest.read().group_of()), frozen)
