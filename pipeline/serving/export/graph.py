"""Build an ONNX graph: operators are added one after the other, constants by value.

Heads compute in double precision, as most of scikit-learn does; only the last step casts to float32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.errors import InputError

OPSET, TREES_OPSET = 18, 3
"""Versions of ONNX that runtimes of recent years read."""
LARGEST = 2_000_000_000
"""Bytes of the largest file that protobuf can hold."""

Array = npt.NDArray[Any]
Value = str
"""The name of a tensor."""


class Graph:
    """Operators from `features`, float32 (N, D), to `probabilities`, float32 (N, K)."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: Value | Array | float, domain: str = "", **attributes: Any) -> Value:  # noqa: ANN401  # whatever an operator takes
        """Add an operator with one output; an input that is no name becomes a constant, a real number a double."""
        names = [one if isinstance(one, str) else self.constant(np.asarray(one)) for one in inputs]
        name = f"head/{operator}_{len(self.nodes)}"
        self.add_node(operator, names, [name], domain=domain, **attributes)
        return name

    def add_node(self, operator: str, inputs: Sequence[Value], outputs: Sequence[Value], **attributes: Any) -> None:  # noqa: ANN401
        """Add an operator with named outputs."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, f"node/{outputs[0]}", **attributes))

    def constant(self, array: Array) -> Value:
        """Add a constant; if float32 can hold it exactly, it is stored as float32 and cast to double in the graph."""
        name = f"head/constant_{len(self.constants)}"
        if array.dtype.kind != "f":
            self.constants.append(numpy_helper.from_array(array, name))
            return name
        narrow = array.astype(np.float32)
        if array.size > 1 and np.array_equal(narrow.astype(np.float64), array.astype(np.float64)):
            self.constants.append(numpy_helper.from_array(narrow, name))
            return self.add("Cast", name, to=TensorProto.DOUBLE)
        self.constants.append(numpy_helper.from_array(array.astype(np.float64), name))
        return name

    def linear(self, rows: Value, weight: Array, bias: Array) -> Value:
        """Return rows (N, D) @ weight (D, K) + bias (K,)."""
        return self.add("Add", self.add("MatMul", rows, weight), bias)

    def sum(self, rows: Value) -> Value:
        """Sum each row: (N, K) -> (N, 1)."""
        return self.add("ReduceSum", rows, np.array([1]), keepdims=1)

    def columns(self, rows: Value, start: int, stop: int) -> Value:
        """Return some columns of (N, K)."""
        return self.add("Slice", rows, np.array([start]), np.array([stop]), np.array([1]))

    def concat(self, parts: Sequence[Value]) -> Value:
        """Concatenate columns."""
        return self.add("Concat", *parts, axis=1)

    def two_classes(self, second: Value) -> Value:
        """Turn the second class's probability (N, 1) into those of two classes (N, 2)."""
        return self.concat([self.add("Sub", 1.0, second), second])

    def normalise(self, rows: Value) -> Value:
        """Divide each row (N, K) by its sum."""
        return self.add("Div", rows, self.sum(rows))

    def squared_distances(self, rows: Value, others: Array) -> Value:
        """Return squared Euclidean distances of rows (N, D) to others (m, D): (N, m)."""
        lengths = self.add("Add", self.sum(self.add("Mul", rows, rows)), (others.astype(np.float64) ** 2).sum(axis=1))
        product = self.add("Mul", self.add("MatMul", rows, np.ascontiguousarray(others.T)), 2.0)
        return self.add("Max", self.add("Sub", lengths, product), 0.0)


def append_to(backbone: onnx.ModelProto, graph: Graph, classes: int) -> onnx.ModelProto:
    """Return a model of a backbone, whose output is `features`, followed by the graph."""
    whole = onnx.ModelProto()
    whole.CopyFrom(backbone)
    whole.graph.node.extend(graph.nodes)
    whole.graph.initializer.extend(graph.constants)
    del whole.graph.output[:], whole.opset_import[:]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])
    whole.graph.output.append(output)
    whole.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)])
    if (size := whole.ByteSize()) > LARGEST:
        raise InputError(f"the ONNX file would have {size / 1e9:.1f} GB, expected at most {LARGEST / 1e9:.0f}")
    onnx.checker.check_model(whole)
    return whole
