"""What `headswap` can be told: a verb is a file of pipeline/stages/ or pipeline/commands/ with its arguments in it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = (
    "prepare", "thumbnails", "embed", "train", "finetune", "curve", "survey", "quality", "compare", "lineage",
    "complete",
)  # fmt: skip
"""Those of dvc.yaml, in its order."""
COMMANDS = tuple(sorted(path.stem for path in ROOT.glob("commands/[a-z]*.py")))
VERBS = (*STAGES, *COMMANDS)


def file_of(verb: str) -> Path:
    """Return the file that holds a verb's HELP, its `arguments` and its `main`."""
    return ROOT / ("stages" if verb in STAGES else "commands") / f"{verb}.py"
