"""A history of dvc.locks, metrics and objects of DVC's cache, which the tests of `headswap diff` write."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from pipeline.commands import diff
from pipeline.core import params
from pipeline.data import manifest


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def images() -> dict[str, list[str]]:
    """Return id -> bytes, label and split."""
    return {f"{number:02}.png": [f"bytes {number}", "red", "test" if number < 4 else "train"] for number in range(20)}


@dataclass
class State:
    """What a run of two heads was made of, and what came out."""

    objects: Path
    images: dict[str, list[str]] = field(default_factory=images)
    recipe: dict[str, Any] = field(default_factory=lambda: {"dtype": "float16", "image_size": 32})
    heads: dict[str, Any] = field(default_factory=lambda: {"logreg": {"C": [0.1, 1]}, "knn": {"n_neighbors": 3}})
    listed: list[str] = field(default_factory=lambda: ["logreg", "knn"])
    compare: dict[str, Any] = field(default_factory=lambda: {"decision": "most_probable", "margin": 0.01, "costs": {}})
    metric: str = "accuracy"
    code: str = "first"
    libraries: dict[str, str] = field(default_factory=lambda: {"numpy": "2.0"})
    validation: dict[str, float] = field(default_factory=lambda: {"logreg": 0.8, "knn": 0.7})
    test: dict[str, float] = field(default_factory=lambda: {"logreg": 0.75, "knn": 0.65})
    noise: str = ""
    """What the network's numbers depend on, and nobody recorded."""

    def commit(self, tag: str) -> None:
        self.write()
        git("add", "dvc.lock", "metrics", "reports/scores.json")
        git("commit", "--allow-empty", "-m", tag)
        git("tag", tag)

    def write(self) -> None:
        """Do what `dvc repro` would."""
        listed, stamp = self.manifest(), json.dumps({"facts": {"recipe": self.recipe, "skipped": {}}}).encode()
        made = [("data/manifest.parquet", self.store(listed))]
        raw = ("data/raw", md5_of(listed) + ".dir")
        matrix = [("data/embeddings/tiny.h5", md5_of(listed + stamp + self.noise.encode())),
                  ("data/embeddings/tiny.json", self.store(stamp))]  # fmt: skip
        stages = {
            "prepare": self.stage([raw], {"seed": 0}, made),
            "embed@tiny": self.stage(made, {"embed": {"dtype": self.recipe["dtype"]}}, matrix),
            **{f"train@tiny-{head}": self.train(head, [*made, *matrix]) for head in self.heads},
        }
        runs = {f"tiny/{head}": self.test[head] for head in self.listed}
        asked = {"run": {"backbones": ["tiny"], "heads": self.listed, "plans": []}, "compare": self.compare}
        predicted = [out for head in self.listed for out in stages[f"train@tiny-{head}"]["outs"]]
        verdict = [
            ("reports/verdict.json", self.store(b'{"answer": "cannot tell", "results": []}')),
            self.file("reports/scores.json", {"test": runs}),
        ]
        stages["compare"] = self.stage(
            [(out["path"], out["md5"]) for out in predicted], {**asked, "selection.metric": self.metric}, verdict
        )
        with Path("dvc.lock").open("w") as stream:
            YAML(typ="safe").dump({"schema": "2.0", "stages": stages}, stream)

    def train(self, head: str, deps: Sequence[tuple[str, str]]) -> dict[str, Any]:
        run = self.store(json.dumps({"facts": {"made_with": {"libraries": self.libraries}}}).encode())
        folder = self.store(json.dumps([{"md5": run, "relpath": "run.json"}]).encode(), ".dir")
        predicted = md5_of(json.dumps([self.validation.get(head), str(deps), self.heads[head]]).encode())
        outs = [(f"models/tiny/{head}", folder), (f"predictions/tiny/{head}.parquet", predicted)]
        if head in self.listed:
            outs.append(self.file(f"metrics/tiny/{head}.json", {"validation": {self.metric: self.validation[head]}}))
        code = ("pipeline/heads", md5_of(self.code.encode()))
        settings = {f"heads.{head}": self.heads[head], "selection": {"metric": self.metric}}
        return self.stage([*deps, code], settings, outs)

    def stage(
        self, deps: Sequence[tuple[str, str]], settings: dict[str, Any], outs: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        def listed(some: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
            return [{"path": path, "hash": "md5", "md5": md5, "size": 1} for path, md5 in some]

        return {"cmd": "headswap", "deps": listed(deps), "params": {"params.yaml": settings}, "outs": listed(outs)}

    def manifest(self) -> bytes:
        columns: dict[str, list[str | None]] = {name: [] for name in manifest.COLUMNS}
        for image_id, (content, label, split) in sorted(self.images.items()):
            sha256 = hashlib.sha256(content.encode()).hexdigest()
            row = (image_id, f"data/raw/{image_id}", sha256, label, None, split)
            for name, value in zip(manifest.COLUMNS, row, strict=True):
                columns[name].append(value)
        buffer = BytesIO()
        pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), buffer)
        return buffer.getvalue()

    def store(self, content: bytes, suffix: str = "") -> str:
        md5 = md5_of(content)
        path = self.objects / md5[:2] / f"{md5[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5 + suffix

    def file(self, path: str, content: object) -> tuple[str, str]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content))
        return path, md5_of(Path(path).read_bytes())


def told(state: State) -> str:
    """Commit a state, and return what changed since the first."""
    state.commit("after")
    return diff.main(params.load(), ["before", "after"])


def section(text: str, heading: str) -> list[str]:
    lines = text.splitlines()
    start = lines.index(heading) + 1
    return lines[start : lines.index("", start) if "" in lines[start:] else None]
