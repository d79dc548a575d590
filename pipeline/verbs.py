"""What `headswap` can be told: a sub-command per stage and per user verb."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A sub-command: its module's `main(params, **options)` returns the summary line."""

    module: str
    help: str
    options: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    words: "tuple[Words, ...]" = ()
    counts: tuple[tuple[str, str], ...] = ()
    """Flags that take a number."""
    texts: "tuple[Text, ...]" = ()


@dataclass(frozen=True)
class Text:
    """A flag that takes a word, such as a file's name."""

    name: str
    metavar: str
    help: str
    required: bool = False


@dataclass(frozen=True)
class Words:
    """What stands behind a verb without a flag."""

    name: str
    help: str
    how_many: str | int | None = None
    """As argparse says it: None for one, which is no list then."""


OPTIONS = {
    "backbone": "a name from `backbones:` in params.yaml",
    "head": "a name from `heads:` in params.yaml",
    "plan": "a name from `plans:` in params.yaml",
}

MODEL = "<backbone>/<head or plan>, or just the head or plan"

VERBS = {
    "prepare": Verb("stages.prepare", "stage: hash the images, deal the splits, write data/manifest.parquet"),
    "thumbnails": Verb(
        "stages.thumbnails", "stage: draw small pictures of the images, 3,000 at most, for the report"
    ),
    "embed": Verb(
        "stages.embed",
        "stage: push images the cache does not know through a frozen CNN",
        ("backbone",),
        flags=(("dry-run", "say how many images that would be and how long it would take; compute nothing"),),
    ),
    "train": Verb("stages.train", "stage: fit a head on cached embeddings", ("backbone", "head")),
    "finetune": Verb(
        "stages.finetune",
        "stage: train the last blocks, or all, of a CNN; `torchrun -m pipeline finetune ...` shares the work",
        ("backbone", "plan"),
        flags=(("dry-run", "say what it would store, and how long it would take; compute nothing that is kept"),),
    ),
    "curve": Verb(
        "stages.curve",
        "stage: train heads, and plans if asked for, on parts of the training images: the label-efficiency curve",
        ("backbone",),
        flags=(("dry-run", "say how many trainings that would be, and how long the plans' would take"),),
    ),
    "survey": Verb(
        "stages.survey",
        "stage: score how well the embeddings fit the task before any head is trained, and draw their map",
        ("backbone",),
    ),
    "quality": Verb(
        "stages.quality",
        "stage: look for duplicates, wrong labels, outliers and blank images; list them in reports/quality.csv",
        texts=(
            Text("apply", "FILE", "instead: leave out what FILE, a copy of that list, decides to exclude"),
        ),
        flags=(
            ("exclude-copies", "instead: leave out one of every two near-duplicates, as that list suggests"),
        ),
    ),
    "compare": Verb(
        "stages.compare",
        "stage: score every run on the test split, write the verdict and the report; with two runs named: compare "
        "these here and now, write nothing",
        words=(Words("run", "<backbone>/<head or plan>, or just the head or plan", "*"),),
    ),
    "report": Verb(
        "commands.report",
        "say the verdict again, and where its page is",
        flags=(("open", "show the page in a browser"),),
    ),
    "audit": Verb(
        "stages.audit",
        "read every byte from images to verdict, dvc.lock and DVC's cache; name all that was altered and exit with 1",
        flags=(
            ("record", "stage: write reports/lineage.json instead, after checking that the stamps agree"),
            ("quick", "check structure and stamps, and read no large file"),
            ("json", "print what was found as JSON"),
        ),
        counts=(("recompute", "also push N random images through the CNN again, and compare with the stored rows"),),
    ),
    "complete": Verb("stages.complete", "stage: the last one; name the runs that failed and exit with 1"),
    "predict": Verb(
        "commands.predict",
        "classify new images with a head or a fine-tuned model: label, probabilities, and which are unlike the "
        "training images",
        words=(Words("model", MODEL), Words("path", "images, or folders of them", "+")),
        texts=(Text("out", "FILE", "a table to write: .csv, .json or .parquet; left out, CSV is printed"),),
    ),
    "export": Verb(
        "commands.export",
        "write backbone, head and calibration as one ONNX file, and a model card beside it",
        words=(Words("model", MODEL), Words("file", "the .onnx file to write")),
    ),
    "trace": Verb(
        "commands.trace",
        "show what a number or a file comes from and what came of it: images, weights, settings, commit, machine",
        words=(Words(
            "what",
            "an image (path, id or the beginning of its sha256), a run, a file, RUN:METRIC or RUN:IMAGE; "
            "a run is <backbone>/<head or plan>, or just the head or plan",
        ),),
    ),
    "diff": Verb(
        "commands.diff",
        "say what changed between two commits: images, splits, recipe, heads, results, and which moved for what reason",
        words=(Words("revision", "a commit, branch or tag; the working tree if only one is given", "+"),),
    ),
    "forget": Verb(
        "commands.forget",
        "take images out of cache and embeddings for good, and list all that still carries them",
        words=(Words("image", "its path, id or sha256", "+"),),
        flags=(("yes", "do it; without this, only say what would be done"),),
    ),
    "lineage": Verb(
        "commands.lineage",
        "write what dvc.lock says as W3C PROV-JSON or OpenLineage events, for other tools",
        words=(Words(
            "target",
            "FORMAT FILE: prov or openlineage, and the file to write; events bear dvc.lock's time: of its commit, or "
            "of its last change where that is not committed",
            2,
        ),),
    ),
    "init": Verb(
        "commands.init",
        "look at your images, say what is in them, and write the data, split and run sections of params.yaml",
        flags=(("yes", "write without asking"),),
        texts=(
            Text(
                "data",
                "PATH",
                "a folder of class folders or of train, val and test; a CSV or Parquet of paths and labels; a zip or "
                "tar of these; a URL; or torchvision:<data set>",
                required=True,
            ),
        ),
    ),
    "demo": Verb("commands.demo", "lay the demo's 2,624 images out under data/raw/elpv"),
    "cache": Verb(
        "commands.cache",
        "list what the frozen pass has stored; or verify, prune or merge it",
        flags=(
            ("verify", "read every shard, name the damaged ones and exit with 1"),
            ("prune", "say what no commit of this repository needs; remove it with --yes"),
            ("yes", "with --prune: remove"),
            ("ignore-missing", "with --prune: take old manifests that DVC's cache no longer holds as not needed"),
            ("merge", "put small shards together"),
        ),
    ),
    "backbones": Verb("commands.backbones", "list every frozen CNN: width, input size, weights, and if they are here"),
    "doctor": Verb(
        "commands.doctor",
        "check params.yaml, data, weights and versions before anything expensive runs, and what a killed run left",
        flags=(("fix", "mend what a killed run left; no cached row is lost"),),
    ),
}  # fmt: skip
