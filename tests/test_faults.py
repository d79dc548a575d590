"""Whatever goes wrong on the way, the next run ends with the same bytes and nothing is lost."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.data import manifest
from pipeline.embeddings import matrix, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.networks import backbones, frozen_pass, runtime
from pipeline.networks.frozen_pass import Item
from pipeline.stages import embed, prepare
from tests.conftest import REPOSITORY, SIZE, Project, write_image
from tests.faults import MATRIX, METRICS, fail_the_nth
from tests.networks import exports
from tests.preloaded import PYTHON
from tests.soak import soak

EMBED = ["embed", "--backbone", "tiny"]
ROOT = Path(".headswap/embeddings")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_pass, "SHARD_ROWS", 16)


@pytest.fixture
def prepared(project: Project) -> Project:
    prepare.main(project.write())
    return project


def clear() -> None:
    shutil.rmtree(".headswap", ignore_errors=True)
    shutil.rmtree("data/embeddings", ignore_errors=True)


def whole() -> bytes:
    """Run to the end from nothing; return the matrix, and leave nothing."""
    assert main(EMBED) == 0
    content = MATRIX.read_bytes()
    clear()
    return content


def temporary_files() -> list[Path]:
    return list(Path().rglob("*.tmp"))


Parent = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def in_children(preloaded: Path) -> Iterator[Parent]:
    """Run tests/faults.py, and let it act on the current project; its copies lie in `rounds` beside it."""
    command = [str(preloaded / PYTHON), "-m", "tests.faults"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as parent:
        assert parent.stdin
        assert parent.stdout
        assert parent.stderr

        def act(action: str, *numbers: int) -> dict[str, Any]:
            project = Path.cwd()
            line = json.dumps([action, str(project), str(project.parent / "rounds"), *numbers])
            parent.stdin.write(f"{line}\n")
            parent.stdin.flush()
            said = parent.stdout.readline()
            assert said, parent.stderr.read()
            result: dict[str, Any] = json.loads(said)
            return result

        yield act
        parent.stdin.close()


@pytest.fixture
def many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Project) -> Path:
    """Make the project larger, and a folder below, so that copies have a place beside it."""
    for number in range(100, 140):
        write_image(Path(f"data/raw/red/{number}.png"), "red", number)
        write_image(Path(f"data/raw/blue/{number}.png"), "blue", number)
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("data", "params.yaml", "tiny.pth"):
        (tmp_path / name).rename(inner / name)
    monkeypatch.chdir(inner)
    prepare.main(project.write())
    return tmp_path / "rounds"


@pytest.mark.parametrize("kills", [2, *soak([60])])
def test_after_any_number_of_kills_one_clean_run_gives_the_same_bytes(
    many_images: Path, in_children: Parent, kills: int
) -> None:
    result = in_children("kill_embed", kills, 0)
    sys.stdout.write(json.dumps(result))  # `pytest -s` shows how many landed
    assert result["kills"] >= kills
    assert result["landed"] >= kills / 3, "most kills came before or after the work"
    expected = {name: (many_images / "whole/data/embeddings" / name).read_bytes() for name in ("tiny.h5", "tiny.json")}
    for number in range(result["rounds"]):
        for name, content in expected.items():
            assert (many_images / f"{number}/data/embeddings" / name).read_bytes() == content
        (stored,) = upkeep.recipes(many_images / str(number) / ROOT)
        assert not any(upkeep.verify(stored.shards))
        keys = np.concatenate([upkeep.read_shard(path).keys for path in stored.shards])
        assert len(keys) == len(set(keys.tolist())) == 116


@pytest.mark.parametrize("kills", [2, *soak([40])])
def test_a_training_that_was_killed_any_number_of_times_ends_as_one_that_was_not(
    many_images: Path, project: Project, in_children: Parent, kills: int
) -> None:
    plan = {**project.content["plans"]["last"], "epochs": 10, "patience": 10, "batch_size": 32}
    params = project.write(plans={"last": plan})
    embed.main(params, "tiny")
    result = in_children("kill_finetune", kills, 0)
    sys.stdout.write(json.dumps(result))
    assert result["kills"] >= kills
    assert result["landed"] >= kills / 3, "most kills came before or after the work"
    for name in (METRICS, Path("predictions/tiny/last.parquet"), Path("models/tiny/last/model.safetensors")):
        expected = (many_images / "whole" / name).read_bytes()
        assert all((many_images / str(number) / name).read_bytes() == expected for number in range(result["rounds"]))


def test_two_writers_at_once_with_different_batch_sizes_share_what_they_made(
    many_images: Path, in_children: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_children("two") == {"statuses": [0, 0]}
    matrices = []
    for name in ("one", "two"):
        monkeypatch.chdir(many_images / name)
        assert main(EMBED) == 0
        matrices.append(MATRIX.read_bytes())
        assert matrix.read("tiny").features.shape == (116, 16)
    assert matrices[0] == matrices[1]
    (stored,) = upkeep.recipes(many_images / "shared")
    assert not any(upkeep.verify(stored.shards))


def test_a_second_embed_in_the_same_folder_stops_with_one_line_and_a_killed_first_one_is_no_obstacle(
    many_images: Path, in_children: Parent
) -> None:
    result = in_children("second")
    assert result["amid"]
    assert result["statuses"] == [2, 0, -9, 0]
    (line,) = result["errors"].splitlines()
    assert "another `headswap embed` is at work in this repository already: " in line
    assert f"process {result['first']} (" in line
    assert f"wait for it, or kill {result['first']} (what it has finished is kept)" in line


@pytest.mark.parametrize(("error", "step"), [(28, 3), *soak([(5, 1), (28, 1)])])
def test_whichever_write_fails_it_is_one_line_and_nothing_is_left_half_written(
    prepared: Project, capsys: pytest.CaptureFixture[str], error: int, step: int
) -> None:
    expected = whole()
    seen = []
    for number in range(step, 100, step):
        with pytest.MonkeyPatch.context() as patch:
            failed = fail_the_nth(number, patch, error)
            status = main(EMBED)
        assert not temporary_files()
        if not failed:
            assert status == 0
            break
        seen += failed
        assert status == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert main(EMBED) == 0
        assert MATRIX.read_bytes() == expected
        clear()
    assert set(seen) == {"write_bytes", "write_text", "replace", "fsync", "pwrite"}


@pytest.mark.parametrize("limit", [2000, 5000])
def test_a_disk_that_is_full_is_one_line_and_loses_nothing(
    prepared: Project, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    expected = whole()
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # the first keeps shards out, the second the matrix
    try:
        assert main(EMBED) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "File too large" in error
    assert not temporary_files()
    assert not MATRIX.exists()
    assert main(EMBED) == 0
    assert MATRIX.read_bytes() == expected


class TestInterrupts:
    def test_a_signal_that_is_ignored_stays_so(self, prepared: Project, forwards: Callable[[], int]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.MonkeyPatch.context() as patch:
            self.interrupt(patch, signal.SIGINT)
            assert main(EMBED) == 0
        assert forwards() == 36

    @staticmethod
    def interrupt(patch: pytest.MonkeyPatch, *signals: signal.Signals) -> None:
        """Send signals while the fifth batch of four images is in the network."""
        real, batches = runtime.lazy, []

        def interrupting(*args: Any) -> runtime.Forward:
            forward = real(*args)

            def run(images: runtime.Batch) -> runtime.Floats:
                batches.append(images)
                if len(batches) == 5:
                    for one in signals:
                        signal.raise_signal(one)
                return forward(images)

            return run

        patch.setattr(runtime, "lazy", interrupting)

    @pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
    def test_the_batch_in_hand_is_finished_and_only_the_rest_is_computed_later(
        self, prepared: Project, one: signal.Signals, forwards: Callable[[], int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = whole()
        before = forwards()
        with pytest.MonkeyPatch.context() as patch:
            self.interrupt(patch, one)
            assert main(EMBED) == 130
        assert "interrupted; what was finished is kept" in capsys.readouterr().err
        assert forwards() - before == 20
        assert not MATRIX.exists()
        assert not temporary_files()
        assert main(EMBED) == 0
        assert forwards() - before == 36
        assert MATRIX.read_bytes() == expected

    @pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_one_acts_at_once(
        self, prepared: Project, one: signal.Signals, forwards: Callable[[], int]
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            self.interrupt(patch, one, one)
            assert main(EMBED) == 130
        assert forwards() == 16
        assert not temporary_files()

    def test_the_handlers_of_before_are_back_afterwards(self, prepared: Project) -> None:
        before = signal.getsignal(signal.SIGINT)
        assert main(EMBED) == 0
        assert signal.getsignal(signal.SIGINT) is before

    def test_outside_the_main_thread_nothing_is_deferred_and_nothing_breaks(self, prepared: Project) -> None:
        with ThreadPoolExecutor(1) as pool:
            assert "36 computed" in pool.submit(embed.main, prepared.write(), "tiny").result()


@pytest.mark.parametrize("damage", ["flipped", "truncated", "swapped", "foreign"])
def test_a_damaged_shard_stops_the_command_by_name_before_anything_is_done(
    prepared: Project, damage: str, forwards: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(EMBED) == 0
    MATRIX.unlink()
    done = forwards()
    one, two, _ = sorted(ROOT.glob("*/*.h5"))
    content = one.read_bytes()
    flipped = content[:999] + bytes([content[999] ^ 8]) + content[1000:]
    changed = {"flipped": flipped, "truncated": content[:-1], "swapped": two.read_bytes(), "foreign": b"x" * 999}
    one.write_bytes(changed[damage])
    assert main(EMBED) == 2
    assert f"{one.name}: altered since it was written" in capsys.readouterr().err
    assert forwards() == done
    assert not MATRIX.exists()


def test_neither_the_order_of_work_nor_the_number_of_threads_leaves_a_trace(
    prepared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, params, table = whole(), prepared.write(), manifest.read()
    loaded = backbones.load("tiny", params.backbone("tiny"))
    recipe = frozen_pass.recipe_of(loaded.identity, params.embed)
    forward = runtime.lazy(loaded.network, "torch")
    for seed, workers in ((0, 1), (1, 8)):
        monkeypatch.setattr(frozen_pass, "decoding_threads", partial(int, workers))
        order = np.random.default_rng(seed).permutation(36)
        items = [Item(Path(table.path[row]), table.sha256[row]) for row in order]
        cache = EmbeddingCache(ROOT, recipe)
        frozen_pass.run(items, cache, forward, loaded.framing, 4, "float16")
        assert main(EMBED) == 0
        assert MATRIX.read_bytes() == expected
        clear()


def test_with_another_batch_size_or_runtime_the_rows_in_the_cache_win(
    prepared: Project, forwards: Callable[[], int]
) -> None:
    assert main(EMBED) == 0
    expected = MATRIX.read_bytes()
    for change in ({"batch_size": 7}, {"runtime": "onnxruntime"}):
        prepared.write(embed=change)
        assert main(EMBED) == 0
        assert MATRIX.read_bytes() == expected
    assert forwards() == 36


@pytest.mark.parametrize("engine", runtime.AUTO)
@pytest.mark.parametrize("sizes", [(1, 8), *soak([((1, 3, 8),)])])
def test_every_batch_size_and_runtime_agrees_within_the_stated_tolerance(
    prepared: Project, engine: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.remember(monkeypatch)
    network = backbones.load("tiny", prepared.write().backbone("tiny")).network
    images = np.random.default_rng(0).integers(0, 256, (24, 3, SIZE, SIZE), dtype=np.uint8)
    reference = runtime.prepare(network, "torch", images)(images)
    for size in sizes:
        forward = runtime.prepare(network, engine, images[:size])
        found = np.concatenate([forward(images[start : start + size]) for start in range(0, 24, size)])
        assert np.abs(found - reference).max() <= runtime.TOLERANCE * np.abs(reference).max()
