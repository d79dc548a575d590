import json
import subprocess
import sys
from collections.abc import Callable
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError, StateError
from pipeline.networks import backbones, onnx_export, runtime
from pipeline.networks.network import Backbone
from pipeline.networks.runtime import RUNTIMES
from tests.conftest import REPOSITORY, SIZE, Project
from tests.networks import exports

# Of the runtimes PyTorch alone can be told to take another processor's kernels.
marks = {"torch": [pytest.mark.processors]}
every_runtime = pytest.mark.parametrize("name", [pytest.param(name, marks=marks.get(name, [])) for name in RUNTIMES])


@pytest.fixture
def network(project: Project, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Load the tiny network; what is exported again is not computed again."""
    exports.remember(monkeypatch)
    return backbones.load("tiny", project.write().backbone("tiny")).network


def batch(seed: int = 0, size: int = 4) -> runtime.Batch:
    return np.random.default_rng(seed).integers(0, 256, (size, 3, SIZE, SIZE), dtype=np.uint8)


@every_runtime
def test_every_runtime_agrees_with_an_eager_float64_pass(network: Backbone, name: str) -> None:
    forward = runtime.prepare(network, name, batch())
    found = forward(batch(1))
    with torch.inference_mode():
        expected = network.double()(torch.from_numpy(batch(1))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32


@every_runtime
def test_a_row_does_not_depend_on_its_neighbours(network: Backbone, name: str) -> None:
    forward = runtime.prepare(network, name, batch())
    mixed = batch(2)
    mixed[1] = batch(1)[3]
    np.testing.assert_array_equal(forward(mixed)[1], forward(batch(1))[3])


@every_runtime
def test_a_result_is_not_overwritten_by_the_next_batch(network: Backbone, name: str) -> None:
    forward = runtime.prepare(network, name, batch())
    first = forward(batch(1))
    kept = first.copy()
    forward(batch(2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("factor", "error"), [(1.01, "0.01"), (np.nan, "nan")])
def test_a_runtime_that_computes_something_else_is_refused(
    network: Backbone, monkeypatch: pytest.MonkeyPatch, factor: float, error: str
) -> None:
    def wrong(module: torch.nn.Module, example: runtime.Batch) -> Callable[[runtime.Batch], runtime.Floats]:
        return lambda images: RUNTIMES["torch"](module, example)(images) * np.float32(factor)

    monkeypatch.setitem(RUNTIMES, "openvino", wrong)  # type: ignore[arg-type]
    with pytest.raises(StateError, match=f"runtime openvino: differs from eager PyTorch by {error}"):
        runtime.prepare(network, "openvino", batch())


def test_an_unknown_runtime_and_a_missing_one_are_named(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'openvino'"):
        runtime.prepare(network, "openvin", batch())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'headswap\[onnxruntime\]'"):
        runtime.prepare(network, "onnxruntime", batch())


def test_openvino_runs_without_its_telemetry() -> None:
    script = """
import socket, sys
import numpy as np
from pipeline.networks import runtime
from torch import nn
from pipeline.networks.network import Backbone

def refuse(*_):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.getaddrinfo = refuse
network = Backbone({"none": nn.Identity()}, (0.5,) * 3, (0.5,) * 3).eval()
runtime.prepare(network, "openvino", np.ones((1, 3, 4, 4), np.uint8))
sys.exit(",".join(name for name in sys.modules if "telemetry" in name) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestAuto:
    @pytest.fixture(autouse=True)
    def _timings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the second candidate be the fastest."""
        seconds = iter([0.2, 0.1, 0.3])
        monkeypatch.setattr(runtime, "_seconds", lambda *_: next(seconds))

    def test_auto_uses_the_fastest_and_records_the_choice(self, network: Backbone) -> None:
        forward = runtime.prepare(network, "auto", batch())
        expected = runtime.prepare(network, "onnxruntime", batch())(batch(1))
        np.testing.assert_array_equal(forward(batch(1)), expected)
        (choice,) = json.loads(runtime.CHOICES.read_text()).values()
        assert choice["runtime"] == "onnxruntime"
        assert choice["milliseconds_per_image"] == {"openvino": 50, "onnxruntime": 25, "torch": 75}

    def test_a_recorded_choice_is_kept_without_timing(self, network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime.prepare(network, "auto", batch())
        monkeypatch.setattr(runtime, "_seconds", None)
        runtime.prepare(network, "auto", batch())

    def test_another_batch_size_is_timed_anew(self, network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime.prepare(network, "auto", batch())
        monkeypatch.setattr(runtime, "_seconds", lambda *_: 1.0)
        runtime.prepare(network, "auto", batch(size=2))
        assert len(json.loads(runtime.CHOICES.read_text())) == 2

    def test_a_missing_or_wrong_runtime_is_left_out_with_the_reason(
        self, network: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        monkeypatch.setitem(RUNTIMES, "openvino", lambda *_: lambda images: np.zeros((4, 16), np.float32))  # type: ignore[arg-type]
        runtime.prepare(network, "auto", batch())
        (choice,) = json.loads(runtime.CHOICES.read_text()).values()
        assert choice["runtime"] == "torch"
        assert "pip install" in choice["left_out"]["onnxruntime"]
        assert "differs from eager" in choice["left_out"]["openvino"]


def test_a_lazy_forward_is_prepared_once_and_only_when_needed(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []
    real = runtime.prepare
    monkeypatch.setattr(runtime, "prepare", lambda *args: prepared.append(args) or real(*args))
    forward = runtime.lazy(network, "torch")
    assert not prepared
    forward(batch())
    forward(batch(1))
    assert len(prepared) == 1


class TestExports:
    def test_a_network_is_exported_once(self, network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        first = runtime.prepare(network, "openvino", batch())(batch(1))
        monkeypatch.setattr(onnx_export, "content", None)
        np.testing.assert_array_equal(runtime.prepare(network, "openvino", batch())(batch(1)), first)
        runtime.prepare(network, "onnxruntime", batch())

    def test_another_layer_pooling_or_normalisation_is_another_network(
        self, network: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks, exported = dict(network.blocks.named_children()), list[Backbone]()
        others = [
            Backbone(blocks, (mean,) * 3, (0.5,) * 3, layers, [pooling]).eval()
            for layers, pooling, mean in (
                (["first"], "average", 0.5), ([], "max", 0.5), ([], "max", 0.1), ([], "gem", 0.1)
            )
        ]  # fmt: skip
        monkeypatch.setattr(onnx_export, "content", lambda one, _: exported.append(one) or b"%d" % len(exported))
        for _ in range(2):
            assert [runtime._onnx(other, batch().shape) for other in others] == [b"1", b"2", b"3", b"4"]
        assert exported == others

    def test_other_weights_or_another_batch_size_are_exported_anew(self, network: Backbone) -> None:
        runtime.prepare(network, "openvino", batch())
        runtime.prepare(network, "openvino", batch(size=2))
        with torch.no_grad():
            next(network.parameters()).mul_(2)
        runtime.prepare(network, "openvino", batch())
        assert len(list(runtime.EXPORTS.iterdir())) == 3

    def test_an_altered_export_is_not_parsed_but_made_again(self, network: Backbone) -> None:
        runtime.prepare(network, "openvino", batch())
        (path,) = runtime.EXPORTS.iterdir()
        good = path.read_bytes()
        path.write_bytes(b"altered")
        runtime.prepare(network, "openvino", batch())
        assert path.read_bytes() == good

    def test_only_the_latest_are_kept(self, network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "EXPORTS_KEPT", 1)
        runtime.prepare(network, "openvino", batch())
        runtime.prepare(network, "openvino", batch(size=2))
        assert len(list(runtime.EXPORTS.iterdir())) == 1


class TestThreads:
    @pytest.mark.parametrize(
        ("stated", "expected"), [("2", 2), ("4,2", 4), ("", 0), ("x", 0), ("-1", 0), ("0", 0), (None, 0)]
    )
    def test_there_are_as_many_as_openmp_may_use(
        self, monkeypatch: pytest.MonkeyPatch, stated: str | None, expected: int
    ) -> None:
        if stated is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", stated)
        assert runtime.threads() == expected

    @pytest.mark.parametrize(("stated", "expected"), [("1", 1), ("", 0)])
    def test_the_runtimes_get_the_number(
        self, network: Backbone, monkeypatch: pytest.MonkeyPatch, stated: str, expected: int
    ) -> None:
        library = MagicMock()
        monkeypatch.setattr(runtime, "_module", lambda *_, **__: library)
        monkeypatch.setattr(runtime, "_onnx", lambda *_: b"")
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        for name in ("onnxruntime", "openvino"):
            RUNTIMES[name](network, batch())
        _, options = library.InferenceSession.call_args.args
        _, _, settings = library.Core().compile_model.call_args.args
        assert options.intra_op_num_threads == expected
        assert settings.get("INFERENCE_NUM_THREADS", "0") == str(expected)


class TestDecided:
    def test_a_runtime_that_is_named_is_not_prepared(self, network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "prepare", None)
        assert runtime.decided(network, "openvino", 4, SIZE) == "openvino"

    def test_auto_is_timed_once_and_workers_get_the_name(
        self, network: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = iter([0.2, 0.3, 0.1])
        monkeypatch.setattr(runtime, "AUTO", ("torch",))
        monkeypatch.setattr(runtime, "_seconds", lambda *_: next(seconds))
        assert [runtime.decided(network, "auto", 4, SIZE) for _ in range(2)] == ["torch", "torch"]
        assert list(seconds) == [0.3, 0.1]
