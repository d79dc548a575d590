"""Arguments that several verbs take."""

from argparse import ArgumentParser

MODEL = "<backbone>/<head or plan>, or just the head or plan"


def entries(parser: ArgumentParser, *options: str) -> None:
    """Ask for names of entries in params.yaml: a backbone, a head, a plan."""
    for option in options:
        parser.add_argument(
            f"--{option}", required=True, metavar=option[0].upper(), help=f"a name from `{option}s:` in params.yaml"
        )


def model(parser: ArgumentParser) -> None:
    """Ask for a run that was trained."""
    parser.add_argument("model", metavar="MODEL", help=MODEL)
