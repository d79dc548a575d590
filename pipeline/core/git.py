"""What git knows of this repository; without git or outside a repository it knows nothing."""

import subprocess


def run(*arguments: str) -> bytes | None:
    """Return what a git command printed; None if it failed or git is not installed."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError):
        return None


def text(*arguments: str) -> str | None:
    """Return what a git command printed, without the white space around it; None as `run`."""
    printed = run(*arguments)
    return None if printed is None else printed.decode(errors="replace").strip()


def commit_of(revision: str) -> str | None:
    """Return the full hash of the commit that a revision names; None if there is none."""
    return text("rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}")


def file_at(commit: str, path: str) -> bytes | None:
    """Return a file, given from the current folder, as it was at a commit; None if it was not there."""
    return run("cat-file", "blob", f"{commit}:./{path}")
