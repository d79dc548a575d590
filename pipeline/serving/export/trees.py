"""Trees as one ONNX operator. A float32 feature is on the same side of every threshold as in scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from pipeline.serving.export.graph import Array, Graph, Value
from pipeline.serving.export.inconvertible import inconvertible


@dataclass(frozen=True)
class Tree:
    """n nodes; a row goes left where its feature is at most the threshold."""

    left: Array
    """(n,), -1 at a leaf."""
    right: Array
    feature: Array
    threshold: Array
    values: Array
    """(n, targets) of the leaves."""
    target: int = 0
    """The column that the first value is added to."""


def of_forest(fitted: Any) -> list[Tree]:  # noqa: ANN401  # scikit-learn has no types
    """Return the trees of a forest, or the only one; their values are the classes' shares.

    In pure leaves these are 0 and 1, whose sum is exact in float32; so the caller divides by the number of trees.
    """
    return [_of_tree(one.tree_) for one in getattr(fitted, "estimators_", [fitted])]


def _of_tree(tree: Any) -> Tree:  # noqa: ANN401
    shares = tree.value[:, 0, :]
    values = shares / shares.sum(axis=1, keepdims=True)
    return Tree(tree.children_left, tree.children_right, tree.feature, tree.threshold, values)


def of_boosting(fitted: Any) -> list[Tree]:  # noqa: ANN401
    """Return the trees of a histogram gradient boosting, each with one target."""
    trees = []
    for grown in fitted._predictors:
        for target, predictor in enumerate(grown):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise inconvertible(fitted, " with categorical features")
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            trees.append(
                Tree(left, right, nodes["feature_idx"], nodes["num_threshold"], nodes["value"][:, None], target)
            )
    return trees


def sum_of(graph: Graph, trees: Sequence[Tree], rows: Value, targets: int) -> Value:
    """Sum the trees' values: (N, D) -> (N, targets)."""
    sizes = [len(tree.left) for tree in trees]
    leaf = np.concatenate([tree.left for tree in trees]) == -1
    tree_id, node_id = np.repeat(np.arange(len(trees)), sizes), np.concatenate([np.arange(size) for size in sizes])
    values = np.concatenate([tree.values for tree in trees])[leaf]
    targets_of = np.repeat([tree.target for tree in trees], sizes)[leaf][:, None] + np.arange(values.shape[1])
    each = values.shape[1]
    attributes = {
        "nodes_treeids": tree_id,
        "nodes_nodeids": node_id,
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ"),
        "nodes_featureids": np.where(leaf, 0, _joined(trees, "feature")),
        "nodes_values": np.where(leaf, 0, rounded_down(_joined(trees, "threshold"))),
        "nodes_truenodeids": np.where(leaf, 0, _joined(trees, "left")),
        "nodes_falsenodeids": np.where(leaf, 0, _joined(trees, "right")),
        "target_treeids": np.repeat(tree_id[leaf], each),
        "target_nodeids": np.repeat(node_id[leaf], each),
        "target_ids": targets_of.ravel(),
        "target_weights": values.ravel(),
    }
    added = graph.add(
        "TreeEnsembleRegressor",
        graph.add("Cast", rows, to=TensorProto.FLOAT),
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function="SUM",
        **{name: array.tolist() for name, array in attributes.items()},
    )
    return graph.add("Cast", added, to=TensorProto.DOUBLE)


def _joined(trees: Sequence[Tree], name: str) -> Array:
    return np.concatenate([getattr(tree, name) for tree in trees])


def rounded_down(thresholds: Array) -> Array:
    """Return the largest float32 not above each threshold: a float32 is below both or above both."""
    narrow = thresholds.astype(np.float32)
    return np.where(narrow > thresholds, np.nextafter(narrow, np.float32(-np.inf)), narrow)
