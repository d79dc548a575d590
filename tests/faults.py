"""Let things go wrong: the n-th system call that changes a file, or the whole process at a random moment.

As a script, it runs `headswap` in child processes that it kills or sets against each other: each line that it reads
says what to do, as a JSON list, and each that it prints what came of it. Children are forked from one process that has
imported everything, so that a kill hits the work and not the imports.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML


def fail_the_nth(number: int, patch: pytest.MonkeyPatch, error: int = 5) -> list[str]:
    """Let the n-th call that changes a file fail; return a list that then holds its name."""
    calls, failed = [0], []

    def failing(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == number:
                failed.append(name)
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        return call

    for owner, name in ((Path, "write_bytes"), (Path, "write_text"), (Path, "replace"), (os, "fsync"), (os, "pwrite")):
        patch.setattr(owner, name, failing(name, getattr(owner, name)))
    return failed


EMBED = ("embed", "--backbone", "tiny")
FINETUNE = ("finetune", "--backbone", "tiny", "--plan", "last")


def started(folder: Path, arguments: Sequence[str] = EMBED, errors: Path | None = None) -> int:
    """Start `headswap` in a folder, in a process group of its own, its errors in a file if named; return its id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.chdir(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    if errors:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    from pipeline import cli

    os._exit(cli.main(arguments))


def finish(child: int) -> int:
    """Wait for a child; return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def finished(child: int) -> bool:
    """Return whether a child has ended, without collecting its status."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill(child: int) -> None:
    """Kill a child's process group."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it is not yet the leader of a group
        os.kill(child, signal.SIGKILL)


def kill_embed(project: Path, rounds: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill the frozen pass; a kill has landed if shards are there and the matrix is not."""
    without = (".headswap", "embeddings")
    return kill_often(project, rounds, kills, seed, EMBED, without, (".headswap/embeddings/*/*.h5", MATRIX))


def kill_finetune(project: Path, rounds: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill fine-tuning; a kill has landed if a checkpoint is there and the metrics are not."""
    lands = (".headswap/checkpoints/*/*.safetensors", METRICS)
    return kill_often(project, rounds, kills, seed, FINETUNE, (".headswap",), lands)


def kill_often(
    project: Path, rounds: Path, kills: int, seed: int, arguments: Sequence[str], without: Sequence[str],
    lands: tuple[str, Path],
) -> dict[str, Any]:  # fmt: skip
    """Kill runs until enough were killed, in new copies of the project whenever one is through.

    Every other kill comes as soon as the run has left something, the others at random moments.
    """
    generator = random.Random(seed)
    for name in ("first", "whole"):  # the first one warms the machine up
        start = time.perf_counter()
        assert finish(started(copied(project, rounds / name, without), arguments)) == 0
    lasts = time.perf_counter() - start
    done, landed, number = 0, 0, 0
    while done < kills:
        folder = copied(project, rounds / str(number), without)
        number += 1
        while True:
            before, at_work = len(list(folder.glob(lands[0]))), done % 2 == 0
            child, until = started(folder, arguments), time.perf_counter() + generator.uniform(0, lasts)
            while not finished(child) and (at_work or time.perf_counter() < until):
                if at_work and len(list(folder.glob(lands[0]))) > before:
                    break
                time.sleep(0.002)
            kill(child)
            if finish(child) == 0:
                break
            done += 1
            landed += any(folder.glob(lands[0])) and not (folder / lands[1]).exists()
        assert finish(started(folder, arguments)) == 0
    return {"kills": done, "landed": landed, "rounds": number}


def two_writers(project: Path, rounds: Path) -> dict[str, Any]:
    """Run two projects with different batch sizes on one cache at once."""
    folders = [copied(project, rounds / name, (".headswap", "embeddings")) for name in ("one", "two")]
    yaml = YAML(typ="safe")
    for folder, size in zip(folders, (3, 8), strict=True):
        content = yaml.load(folder / "params.yaml")
        content["embed"] |= {"batch_size": size, "cache": str(rounds / "shared")}
        yaml.dump(content, folder / "params.yaml")
    children = [started(folder) for folder in folders]
    return {"statuses": [finish(child) for child in children]}


def second_beside_the_first(project: Path, rounds: Path) -> dict[str, Any]:
    """Start a second `embed` while a first one stands still amid its work, and a third when that was killed."""
    folder = copied(project, rounds / "one", (".headswap", "embeddings"))
    first = started(folder)
    while not any(folder.glob(".headswap/embeddings/*/*.h5")):
        time.sleep(0.002)
    os.kill(first, signal.SIGSTOP)
    amid = not (folder / MATRIX).exists()
    statuses = [finish(started(folder, errors=rounds / "errors")), finish(started(folder, (*EMBED, "--dry-run")))]
    kill(first)
    statuses += [finish(first), finish(started(folder))]
    return {"amid": amid, "first": first, "statuses": statuses, "errors": (rounds / "errors").read_text()}


MATRIX = Path("data/embeddings/tiny.h5")
METRICS = Path("metrics/tiny/last.json")


def copied(project: Path, folder: Path, without: Sequence[str]) -> Path:
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(*without))
    return folder


def main() -> None:
    """Do some of the above."""
    from pipeline.networks import backbones, frozen_pass
    from pipeline.stages import embed, finetune  # noqa: F401  # so that children need not
    from tests.conftest import TINY

    backbones.BACKBONES["tiny"] = TINY  # type: ignore[index]
    frozen_pass.SHARD_ROWS = 8
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "kill_embed": kill_embed,
        "kill_finetune": kill_finetune,
        "two": two_writers,
        "second": second_beside_the_first,
    }
    while line := sys.stdin.readline():
        action, project, rounds, *numbers = json.loads(line)
        result = actions[action](Path(project), Path(rounds), *numbers)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
