"""What changed between two revisions, in the user's terms, and which change moved which result."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.lineage.diff import causes, image_changes, pending, revisions
from pipeline.lineage.diff.image_changes import ImageChanges, examples
from pipeline.lineage.diff.pending import Pending
from pipeline.lineage.diff.results import Results
from pipeline.lineage.diff.revisions import Revision

NONE = "no change"
_CATALOGUES = ("heads.", "plans.")
_OF_RECIPE = ("recipe", "augmented_recipe", "skipped")
"""Facts in a matrix's stamp that decide its numbers."""


@dataclass(frozen=True)
class Changes:
    """Two revisions, and what differs between them."""

    before: Revision
    after: Revision

    def lines(self) -> Iterator[str]:
        """Yield the whole text, section by section."""
        yield f"{self.before.name} -> {self.after.name}"
        for revision in (self.before, self.after):
            if not revision.lock:
                yield f"{revision.name} has no dvc.lock: nothing had been run"
        yield from self._pending_lines()
        results = Results(self.before, self.after, self._image_summary(), self.pending)
        sections = {
            "Images": self._image_lines(),
            "Recipe": self._recipe_lines(),
            "Heads and plans": self._run_lines(),
            "Other settings": self._setting_lines(),
            "Code": self._code_lines(),
            "Results": results.lines(),
            "Why": results.why(),
        }
        for heading, found in sections.items():
            yield ""
            yield heading
            yield from (f"  {line}" for line in list(found) or [NONE])
        if altered := sorted(self.before.altered | self.after.altered):  # complete now that all files are read
            yield ""
            yield from altered
        if self.after.commit is None and (names := sorted(set(revisions.not_run_yet(self.after)))):
            yield ""
            yield f"edited in params.yaml since the last run: {', '.join(names)}; run `dvc repro`"

    @cached_property
    def pending(self) -> Pending:
        """What changed in the working tree since its last run, if it is the later of the two."""
        return pending.of(self.after.lock) if self.after.commit is None else Pending()

    def _pending_lines(self) -> Iterator[str]:
        if self.pending.unknown:
            yield f"whether anything changed since the last run is not known: {self.pending.unknown}"
        if files := self.pending.files:
            last = "images, settings and results below are those of the last run"
            yield f"{examples(files)}: changed since the last run: {last}; run `dvc repro`"

    @cached_property
    def images(self) -> ImageChanges | str | None:
        """How the images changed; None if they did not, a line if that is not known."""
        if revisions.have_same(self.before, self.after, manifest.MANIFEST):
            return None
        tables = self.before.manifest(), self.after.manifest()
        if tables[0] is None or tables[1] is None:
            return self._missing(manifest.MANIFEST, tables[0])
        return image_changes.compare(tables[0], tables[1])

    def _image_summary(self) -> str | None:
        return self.images.summary() if isinstance(self.images, ImageChanges) else None

    def _image_lines(self) -> Iterator[str]:
        if isinstance(self.images, str):
            yield self.images
        elif self.images and self.images.kinds:
            yield from self.images.lines()

    def _recipe_lines(self) -> Iterator[str]:
        backbones = [{run.split("/")[0] for run in revision.runs} for revision in (self.before, self.after)]
        for backbone in sorted(backbones[0] | backbones[1]):
            if backbone not in backbones[0] & backbones[1]:
                yield f"{backbone}: {'added' if backbone in backbones[1] else 'removed'}"
            elif not revisions.have_same(self.before, self.after, path := matrix.stamp_path(backbone)):
                facts = self.before.embedded(backbone), self.after.embedded(backbone)
                if facts[0] is None or facts[1] is None:
                    yield self._missing(path, facts[0])
                else:
                    differing = causes.changed(_recipe(facts[0]), _recipe(facts[1]))
                    yield from (f"{backbone}: {name}: {change}" for name, change in differing.items())

    def _run_lines(self) -> Iterator[str]:
        old, new = self.before.runs, self.after.runs
        if added := [run for run in new if run not in old]:
            yield f"added: {', '.join(added)}"
        if removed := [run for run in old if run not in new]:
            yield f"removed: {', '.join(removed)}"
        in_both = {run.split("/")[1] for run in old} & {run.split("/")[1] for run in new}
        for name, change in self._settings().items():
            if name.startswith(_CATALOGUES) and name.split(".")[1] in in_both:
                yield f"{name}: {change}"

    def _setting_lines(self) -> Iterator[str]:
        for name, change in self._settings().items():
            if not name.startswith((*_CATALOGUES, "run.")):
                yield f"{name}: {change}"

    def _settings(self) -> dict[str, str]:
        return causes.changed(self.before.settings, self.after.settings)

    def _code_lines(self) -> Iterator[str]:
        if paths := causes.changed_code(self.before.lock, self.after.lock):
            yield f"{len(paths)} changed: {examples(sorted(paths))}"

    def _missing(self, path: Path, before: object) -> str:
        """Say why an output cannot be read: of the earlier revision if `before` is None, else of the later."""
        revision = self.before if before is None else self.after
        if altered := [line for line in revision.altered if line.startswith(f"{path} of ")]:
            return f"not known: {altered[0]}"
        if revision.out(path) is None:
            return f"not known: {revision.name} has made no {path}"
        return f"not known: {path} of {revision.name} is not in DVC's cache; run `dvc fetch --all-commits`"


def _recipe(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _OF_RECIPE:
        prefix = "" if part == "recipe" else f"{part.removesuffix('_recipe')}."
        found |= {f"{prefix}{name}": value for name, value in facts.get(part, {}).items()}
    return found
