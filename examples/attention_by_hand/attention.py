#!/usr/bin/env python3
"""Scaled dot-product attention, softmax(Q K^T / sqrt(d)) V, one step at a time: 5 queries look at 4 keys.

attention.py         prints each step for the numbers in attention_by_hand.npz, in double precision
attention.py --make  first writes those numbers, the steps as expected.npz, and the two ONNX files (needs onnx)
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
QUERIES, KEYS, SIZE = 5, 4, 8


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    similarity = query @ key.T  # [queries, keys]: how alike is each query to each key
    scaled = similarity / np.sqrt(query.shape[1])  # else the longer the vectors, the nearer softmax is to a mere maximum
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))  # the largest is taken off so that exp cannot overflow
    weights /= weights.sum(axis=1, keepdims=True)  # each row adds up to 1
    return {"similarity": similarity, "scaled": scaled, "weights": weights, "output": weights @ value}


def make() -> None:
    """Multiples of a quarter in [-2, 2]: similarity is exact in float, and can be checked with a pencil."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    random = np.random.default_rng(0)
    shapes = {"query": (QUERIES, SIZE), "key": (KEYS, SIZE), "value": (KEYS, SIZE)}
    np.savez(
        HERE / "attention_by_hand.npz",
        **{name: (random.integers(-8, 9, shape) / 4).astype(np.float32) for name, shape in shapes.items()},
    )

    shapes |= {name: (QUERIES, KEYS) for name in ("similarity", "scaled", "weights")} | {"output": (QUERIES, SIZE)}
    root = numpy_helper.from_array(np.array(np.sqrt(SIZE), np.float32), "root")
    nodes = [
        helper.make_node("Transpose", ["key"], ["key_transposed"], "transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["query", "key_transposed"], ["similarity"], "similarity"),
        helper.make_node("Div", ["similarity", "root"], ["scaled"], "scaling"),
        helper.make_node("Softmax", ["scaled"], ["weights"], "softmax", axis=-1),
        helper.make_node("MatMul", ["weights", "value"], ["output"], "weighted_sum"),
    ]

    def write(file: str, outputs: list[str]) -> None:
        def describe(names: list[str]) -> list:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in names]

        graph = helper.make_graph(nodes, file, describe(["query", "key", "value"]), describe(outputs), [root])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model, full_check=True)
        save(model, HERE / f"{file}.onnx")

    write("attention_by_hand", ["output"])
    write("attention_by_hand_steps", ["similarity", "scaled", "weights", "output"])


def main() -> None:
    if sys.argv[1:] == ["--make"]:
        make()
    with np.load(HERE / "attention_by_hand.npz") as inputs:
        steps = attention(**{name: inputs[name].astype(np.float64) for name in ("query", "key", "value")})
    if sys.argv[1:] == ["--make"]:
        np.savez(HERE / "expected.npz", **steps)
    for name, step in steps.items():
        print(f"{name} {list(step.shape)}")
        print("\n".join("".join(f"{x:10.5f}" for x in row) for row in step) + "\n")


if __name__ == "__main__":
    main()
