"""compare: all runs -> reports/: verdict, page, tables for DVC and a stamp; the only stage that scores the test split.

With two runs named it compares just these, in the terminal, and writes nothing.
"""

from argparse import ArgumentParser
from collections.abc import Sequence

from pipeline.core import options, stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import condensed
from pipeline.quality import files
from pipeline.report import page, plots, terminal
from pipeline.report.evidence import Evidence
from pipeline.verdict import judge, schema
from pipeline.verdict.scored_runs import score
from pipeline.verdict.wording.answer import terminal_lines

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
        return terminal.compare_two(params, run, manifest.read().group_of())
    failed = runs.failures(params.runs())
    finished = runs.read_all([run for run in params.runs() if run not in failed], condensed.read)
    if not any(run.kind == "head" for run in finished):
        raise StateError("no head was trained, nothing to compare with", *failed.values())
    table, found, background = manifest.read(), files.read(), judge.background(params.run.backbones)
    scored = score(finished, params, table.group_of())
    verdict = judge.add_failures(judge.judge(scored, background, params), failed)
    verdict = judge.add_data_checks(verdict, scored.test[0].image_id, table, found)
    embedded = {backbone: stamps.read(matrix.stamp_path(backbone)) for backbone in params.run.backbones}
    evidence = Evidence(
        verdict, finished, scored.decided, table, background.surveys, embedded, thumbnails.read(), found
    )
    schema.write(verdict)
    tables = plots.write(verdict)
    page.write(evidence)
    made = stamps.hashes([schema.VERDICT, schema.SCORES, schema.PAGE, *tables])
    shown = {**stamps.read(manifest.STAMP).outputs, **stamps.read(thumbnails.STAMP).outputs}
    shown |= stamps.hashes([files.FINDINGS])
    stamps.write(schema.STAMP, stamps.Stamp("compare", made, {**verdict.inputs, **shown}))
    return terminal_lines(verdict.sentence, verdict.notes, schema.PAGE)
