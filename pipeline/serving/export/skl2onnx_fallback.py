"""Convert classifiers without a converter here by skl2onnx, in float32."""

import warnings
from typing import Any

from onnx import TensorProto

from pipeline.serving.export.graph import OPSET, TREES_OPSET, Graph, Value
from pipeline.serving.export.inconvertible import inconvertible


def probabilities(graph: Graph, fitted: Any, rows: Value) -> Value:  # noqa: ANN401  # scikit-learn has no types
    """Add a classifier: rows (N, D) -> probabilities (N, K); InconvertibleError if skl2onnx does not know it."""
    from skl2onnx import convert_sklearn  # type: ignore[import-untyped]  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # type: ignore[import-untyped]  # noqa: PLC0415

    given, prefix = graph.add("Cast", rows, to=TensorProto.FLOAT), f"head/{type(fitted).__name__}_{len(graph.nodes)}/"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from its own calls of scikit-learn
            converted = convert_sklearn(
                fitted,
                initial_types=[("rows", FloatTensorType([None, fitted.n_features_in_]))],
                options={id(fitted): {"zipmap": False}},
                target_opset={"": OPSET, "ai.onnx.ml": TREES_OPSET},
            ).graph
    except Exception as error:  # skl2onnx raises many kinds
        raise inconvertible(fitted) from error
    names = {"rows": given, "": ""}
    for tensor in converted.initializer:
        names[tensor.name] = tensor.name = prefix + tensor.name
        graph.constants.append(tensor)
    for node in converted.node:
        node.name = prefix + node.name
        node.input[:] = [names[name] for name in node.input]
        names |= {name: prefix + name for name in node.output}
        node.output[:] = [names[name] for name in node.output]
        graph.nodes.append(node)
    return graph.add("Cast", names[converted.output[1].name], to=TensorProto.DOUBLE)
