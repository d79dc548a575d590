"""Scores of every run in two revisions, and why each moved or did not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.core.tables import aligned
from pipeline.evaluation.scoring import predictions
from pipeline.lineage.diff import causes
from pipeline.lineage.diff.causes import Causes
from pipeline.lineage.diff.pending import Pending
from pipeline.lineage.diff.revisions import Revision, flat_params, have_same

DECISIVE = ("compare.decision", "compare.costs")
"""Settings of `compare` that change a test score, and not only its interval."""
COMPARE = "compare"
"""The stage that scores the test images."""
SAME = 1e-12
"""Scores that differ by less are the same: adding in another order changes the last digits."""
UNKNOWN = "not known"
Reason = tuple[str, tuple[str, ...]]
"""How a run's scores changed, and the causes."""


@dataclass(frozen=True)
class ScorePair:
    """One score of a run, before and after; None where it is not known."""

    before: float | None
    after: float | None

    @property
    def moved(self) -> bool:
        """Whether the two are known to differ."""
        return self.before is not None and self.after is not None and abs(self.after - self.before) > SAME


@dataclass(frozen=True)
class Results:
    """All runs of two revisions."""

    before: Revision
    after: Revision
    images: str | None
    """How the images changed, in one line, if that is known."""
    pending: Pending
    """What changed since the later revision was run."""

    @property
    def metric(self) -> str:
        """The metric of the table: the one by which the later revision chose."""
        return self.after.metric or self.before.metric or "accuracy"

    @property
    def runs(self) -> list[str]:
        """All runs of either revision."""
        return list(dict.fromkeys([*self.after.runs, *self.before.runs]))

    def validation(self, run: str) -> ScorePair:
        """Return a run's validation score."""
        return ScorePair(*(one.validation(run).get(self.metric) for one in (self.before, self.after)))

    def test(self, run: str) -> ScorePair:
        """Return a run's test score."""
        return ScorePair(self.before.test(run, self.metric), self.after.test(run, self.metric))

    def lines(self) -> Iterator[str]:
        """Yield the verdict's answer if it changed, and a table of all runs."""
        answers = [revision.verdict.get("answer", UNKNOWN) for revision in (self.before, self.after)]
        if answers[0] != answers[1]:
            yield f"answer: {answers[0]} -> {answers[1]}"
        if self.before.metric and self.before.metric != self.metric:
            yield f"runs were chosen by {self.before.metric} before, by {self.metric} after, which is shown"
        title = self.metric.replace("_", " ")
        rows = [["run", f"validation {title}", f"test {title}"]]
        for run in self.runs:
            stale = self.after.runs.get(run) in self.pending.stages
            tested = stale or COMPARE in self.pending.edited
            validation, test = self.validation(run), self.test(run)
            rows.append([run, self._cell(run, validation, stale=stale), self._cell(run, test, stale=tested)])
        yield from aligned(rows).splitlines() if len(rows) > 1 else ()

    def _cell(self, run: str, scores: ScorePair, *, stale: bool) -> str:
        again = ", not run again yet" * stale
        if run not in self.before.runs:
            return f"added: {_percent(scores.after)}{again}"
        if run not in self.after.runs:
            return f"removed: {_percent(scores.before)}"
        if scores.before is None or scores.after is None:
            known = scores.before != scores.after
            return f"{_percent(scores.before)} -> {_percent(scores.after)}{again}" if known else UNKNOWN
        if not scores.moved:
            return f"{_percent(scores.after)}{again or ', the same'}"
        points = 100 * (scores.after - scores.before)
        return f"{_percent(scores.before)} -> {_percent(scores.after)} ({points:+.2f} points){again}"

    def why(self) -> Iterator[str]:
        """Yield how the scores of the runs in both revisions changed, and why, with equal runs in one line."""
        grouped: dict[Reason, list[str]] = {}
        for run in self.runs:
            if run in self.before.runs and run in self.after.runs:
                for reason in self._reasons(run):
                    grouped.setdefault(reason, []).append(run)
        for (what, listed), some in grouped.items():
            yield f"{', '.join(some)}: {what}"
            yield from (f"  {line}" for line in listed)

    def _reasons(self, run: str) -> Iterator[Reason]:
        moved = ["validation"] if self.validation(run).moved else []
        tested = ["test"] if self.test(run).moved else []
        found = self._causes_of_run(run)
        if tested and have_same(self.before, self.after, predictions.path_of(*run.split("/"))):
            yield _because(tested, self._causes_of_decisions())
            tested = []
        elif tested:
            found += [line for line in self._causes_of_decisions(code=False) if line not in found]
        if moved or tested:
            # read only if a number moved: it takes DVC's cache
            environment = causes.made_with(self.before, self.after, run)
            yield _because(moved + tested, found + (environment or []), known=environment is not None)
        elif found:
            yield f"{self._unchanged(run)}, although these changed:", tuple(found)

    def _causes_of_run(self, run: str) -> list[str]:
        stage = self.after.runs[run]
        if stage != (former := self.before.runs[run]):
            return [f"stage {former} -> {stage}"]
        found = Causes(self.before.lock, self.after.lock)
        found.walk(stage)
        return list(found.lines(self.images))

    def _causes_of_decisions(self, *, code: bool = True) -> list[str]:
        """Return what changed in how `compare` turns probabilities into decisions."""
        old, new = self.before.lock.get("compare"), self.after.lock.get("compare")
        if old is None or new is None:
            return []
        params = [
            {name: value for name, value in flat_params(one).items() if name.startswith(DECISIVE)} for one in (old, new)
        ]
        found = [f"{name}: {change}" for name, change in causes.changed(*params).items()]
        changed = {path for path in causes.changed_deps(old, new) if causes.is_code(path)}
        return found + ([causes.code(changed)] if changed and code else [])

    def _unchanged(self, run: str) -> str:
        """Say that no score of a run in the table is known to have moved."""
        old, new = self.before.validation(run), self.after.validation(run)
        if not old or not new:
            return "whether it moved is not known"
        test = self.test(run)
        what = "validation" if test.moved or test.before is None or test.after is None else "validation and test"
        others = any(ScorePair(old.get(name), new.get(name)).moved for name in old.keys() | new.keys())
        return f"{what} stayed the same{' (other metrics moved)' * others}"


def _because(moved: Sequence[str], found: Sequence[str], *, known: bool = True) -> Reason:
    what = f"{' and '.join(moved)} moved"
    if found:
        return f"{what}, because of{' one or more of' * (len(found) > 1)}:", tuple(found)
    unread = "" if known else "; with which libraries and on which machine it was made is not known"
    return f"{what}; nothing recorded explains it{unread}", ()


def _percent(score: float | None) -> str:
    return UNKNOWN if score is None else f"{score:.2%}"
