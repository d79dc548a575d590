"""CHECKS: name -> a check of images and labels that lists those which a person should see.

To add one: a decorated function here. Files, report, `--apply` and tests run over the whole mapping.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pipeline.core.params import Params
from pipeline.data.manifest import Manifest, rows_of
from pipeline.heads.inputs import HeadInputs
from pipeline.heads.types import chosen_rows
from pipeline.quality import copies, labels, outliers, signatures
from pipeline.quality.findings import CheckResult, Finding, Material, Pair

FEWEST, FEWEST_TO_TEST = 10, 2
"""Images of a class, and test images of it, below which it is tiny."""
RIGHT_BY_AGREEMENT = ((0.8, 35, 8), (0.7, 46, 19), (0.6, 64, 29), (labels.LEAST_AGREEMENT, 83, 26))
"""Cohen's kappa from which on, and percent of the listed labels that were right where 1% or 5% of all were wrong: means
over the simulations of `make study ONLY=labels` (docs/quality.md)."""
_ORDER = {"test": 0, "val": 1, "train": 2}
"""Of two copies the one in the first split stays: test images, which give the scores, before training images."""
SETTLE = "a copy has another label: decide which is right, and correct it in your data"
EVERY_COPY = "keep, and delete one of the files: excluding it would exclude every copy"


@dataclass(frozen=True)
class Check:
    """One kind of finding."""

    name: str
    title: str
    meaning: str
    """What the score means, for a person who reads the list."""
    run: Callable[[Material], CheckResult]


_REGISTRY: dict[str, Check] = {}
CHECKS: Mapping[str, Check] = _REGISTRY
_Function = Callable[[Material], CheckResult]


def _check(title: str, meaning: str = "") -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        _REGISTRY[function.__name__] = Check(function.__name__, title, meaning, function)
        return function

    return add


def run(params: Params, given: HeadInputs) -> dict[str, CheckResult]:
    """Look at all embedded images with every check; return name -> what it found."""
    with tqdm(total=len(given.row), desc="quality: decode", unit="image", disable=None) as bar:
        seen = signatures.read(given.table, given.row, bar.update)
    features = chosen_rows(given.images.X, given.images.image)
    with tqdm(total=len(CHECKS), desc="quality", unit="check", disable=None) as bar:
        material = Material(
            given.table, given.row, features, signatures.parts(seen), params.data.near_duplicate, params.seed,
            bar.set_postfix_str,
        )  # fmt: skip
        found = {}
        for name, check in CHECKS.items():
            found[name] = check.run(material)
            bar.update()
    return found


@_check("The same bytes more than once")
def duplicate(given: Material) -> CheckResult:
    """List every image that shares its bytes with another one."""
    return CheckResult([
        Finding(row, rows[1] if row == rows[0] else rows[0], 1.0, EVERY_COPY)
        for rows in _copies(given.table)
        for row in rows
    ])  # fmt: skip


@_check("Nearly the same pixels", "correlation of their pixels: 1 is the same")
def near_duplicate(given: Material) -> CheckResult:
    """List images with a recompressed, scaled, brightened, mirrored or slightly cropped copy."""
    suggested, found = _suggestions(given.table, given.near_duplicates), list[Finding]()
    for one, two, score in given.near_duplicates:
        both = sorted(((one, two), (two, one)), key=lambda rows: not suggested[rows[0]].startswith("exclude"))
        found += [Finding(row, other, score, suggested[row]) for row, other in both]
    return CheckResult(found, {"correlation": given.near_duplicate})


@_check("One image, two labels", "correlation of their pixels: 1 is the same")
def label_conflict(given: Material) -> CheckResult:
    """List images with the same bytes, or nearly the same pixels, and different labels."""
    table = given.table
    pairs = [(rows[0], row, 1.0) for rows in _copies(table) for row in rows[1:]]
    found = [pair for pair in [*pairs, *given.near_duplicates] if table.label[pair[0]] != table.label[pair[1]]]
    both = [Finding(*rows, score, SETTLE) for one, two, score in found for rows in ((one, two), (two, one))]
    return CheckResult(both, {"correlation": given.near_duplicate})


@_check("Labels that are probably wrong", "probability of the given label; lower is more suspicious")
def label_error(given: Material) -> CheckResult:
    """List images whose label neither a classifier nor their neighbours support."""
    thresholds: dict[str, float] = {"images of the label among the 10 nearest, at most": labels.MOST_ALIKE}
    if len(given.table.classes) < 2 or len(given.row) <= labels.FOLDS:
        return CheckResult([], thresholds, "Not looked for: too few images or classes.")
    agreement = labels.agreement(given.target, given.probability)
    thresholds["Cohen's kappa of classifier and labels, at least"] = labels.LEAST_AGREEMENT
    if agreement < labels.LEAST_AGREEMENT:
        return CheckResult([], thresholds, _cannot_judge(agreement))
    rows = labels.suspected(given.target, given.probability, given.nearest[0])
    found = []
    for at in rows.tolist():
        likely = given.table.classes[int(given.probability[at].argmax())]
        score = round(float(given.probability[at, given.target[at]]), 4)
        found.append(Finding(int(given.row[at]), None, score, f"is it {likely!r}?"))
    return CheckResult(found, thresholds, _false_alarms(agreement) if found else "")


def _cannot_judge(agreement: float) -> str:
    return (
        "Labels cannot be judged here: from the embeddings, a classifier agrees with them too little (Cohen's kappa "
        f"{agreement:.2f}, expected at least {labels.LEAST_AGREEMENT}), so most of what it doubts would be right."
    )


def _false_alarms(agreement: float) -> str:
    most, least = next(shares for kappa, *shares in RIGHT_BY_AGREEMENT if agreement >= kappa)
    return (
        "If all your labels are right, so are these. In simulations where a classifier agreed with the labels as it "
        f"does here (Cohen's kappa {agreement:.2f}), {least}% of the listed labels were right, on average, if 5% of "
        f"all labels were wrong, and {most}% if 1% were."
    )


@_check("Unlike the other images", "modified z-score of the distance to the ten nearest images")
def outlier(given: Material) -> CheckResult:
    """List images that lie far from all others."""
    score = outliers.scores(given.nearest[1])
    rows = np.flatnonzero(score >= outliers.FAR)
    rows = rows[np.argsort(-score[rows], kind="stable")]
    found = [
        Finding(int(given.row[at]), None, round(float(score[at]), 2), "exclude if it does not belong") for at in rows
    ]
    note = "" if len(score) >= outliers.FEWEST else f"Not looked for: fewer than {outliers.FEWEST} images."
    return CheckResult(found, {"modified z-score": outliers.FAR}, note)


@_check("Blank images", "standard deviation of the pixels, of 255")
def blank(given: Material) -> CheckResult:
    """List images that show nothing."""
    contrast = copies.contrast(given.signatures)
    rows = np.flatnonzero(contrast < copies.BLANK)
    rows = rows[np.argsort(contrast[rows], kind="stable")]
    found = [Finding(int(given.row[at]), None, round(float(contrast[at]), 2), "exclude") for at in rows]
    return CheckResult(found, {"standard deviation": copies.BLANK})


@_check("Tiny classes", "images of the class")
def tiny_class(given: Material) -> CheckResult:
    """List the images of classes that have fewer than 10, or fewer than 2 to test."""
    table, found = given.table, list[Finding]()
    for _, rows in sorted(rows_of(table.label).items(), key=lambda item: (len(item[1]), item[0])):
        tested = sum(table.split[row] == "test" for row in rows)
        if len(rows) < FEWEST or tested < FEWEST_TO_TEST:
            advice = f"label more of this class, or merge it: {tested} of its images to test"
            found += [Finding(row, None, len(rows), advice) for row in rows]
    return CheckResult(found, {"images": FEWEST, "images to test": FEWEST_TO_TEST})


def _copies(table: Manifest) -> Iterator[list[int]]:
    """Yield the rows of each set of images with the same bytes."""
    return (rows for rows in rows_of(table.sha256).values() if len(rows) > 1)


def _suggestions(table: Manifest, pairs: Sequence[Pair]) -> dict[int, str]:
    """Return a suggestion for each image in some pairs: an image is excluded only if one that it resembles is kept."""
    like = defaultdict(set)
    for one, two, _ in pairs:
        like[one].add(two)
        like[two].add(one)
    suggested: dict[int, str] = {}
    for row in sorted(like, key=lambda row: (_ORDER[table.split[row]], row)):
        kept = sorted(other for other in like[row] if suggested.get(other) == "keep")
        if any(table.label[other] != table.label[row] for other in like[row]):
            suggested[row] = SETTLE
        elif not kept:
            suggested[row] = "keep"
        elif any(table.split[other] != table.split[row] for other in kept):
            other = next(table.split[other] for other in kept if table.split[other] != table.split[row])
            suggested[row] = f"exclude: a copy in {other!r} is kept"
        else:
            suggested[row] = "exclude: a copy is kept"
    return suggested
