"""A temporary copy of this repository under git, to run and measure the pipeline in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parent.parent


class Clone:
    """The repository's tracked and new files, committed in a folder of their own; nothing that a run wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path}
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=REPOSITORY, text=True).splitlines():
            if (REPOSITORY / name).exists() and not name.startswith(("dvc.lock", "metrics/", "reports/")):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, self.root / name)
        self.run("git", "init", "--quiet")
        self.run("git", "add", ".")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "clone")

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command in the clone; return what it printed."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode != status:
            raise AssertionError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def repro(self, *arguments: str) -> tuple[list[str], str]:
        """Run `dvc repro`; return the stages that ran, and what it printed."""
        output = self.run("dvc", "repro", *arguments)
        return re.findall(r"Running stage '(.+)'", output), output

    def set(self, **values: Any) -> None:  # noqa: ANN401  # whatever YAML can hold
        """Set dotted keys of params.yaml."""
        yaml = YAML()
        content = yaml.load(self.root / "params.yaml")
        for place, value in values.items():
            *path, last = place.split(".")
            section = content
            for key in path:
                section = section[key]
            section[last] = value
        yaml.dump(content, self.root / "params.yaml")

    def cached_shards(self) -> list[str]:
        """Return the names, that is the hashes, of the shards of all that ever went through the frozen CNN."""
        return sorted(path.name for path in (self.root / ".headswap").rglob("*.h5"))
