#!/usr/bin/env python3
"""Times models in heed and in onnxruntime on one core, in turn, and prints the least of all rounds and the ratio.

    tests/bench/against_onnxruntime.py BATCH MODEL.onnx=MODEL.heed [...]        (pip install onnxruntime numpy; heed is build/heed)

onnxruntime's time is that of a call with bound inputs and outputs, one thread; heed's is `heed bench --json`.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import onnxruntime

ROUNDS = 7


def onnxruntime_session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def least_us(call, seconds: float = 0.5) -> float:
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        least = min(least, time.perf_counter_ns() - start)
    return least / 1000


def least_of_both(session, inputs: dict, heed: str, dims: list, program: str = "build/heed") -> tuple:
    """The least times in microseconds, heed's and onnxruntime's; `inputs` by name, `dims` as `NAME=N`."""
    os.sched_setaffinity(0, {0})
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for value in session.get_outputs():
        binding.bind_output(value.name)
    command = [program, "bench", heed, "--json"] + [part for dim in dims for part in ("--dim", dim)]
    ours = theirs = float("inf")
    for _ in range(ROUNDS):
        theirs = min(theirs, least_us(lambda: session.run_with_iobinding(binding)))
        ours = min(ours, json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["min_us"])
    return ours, theirs


def main() -> None:
    batch = int(sys.argv[1])
    print(f"{'model':30}{'heed us':>10}{'onnxruntime us':>16}{'ratio':>8}   (batch {batch})")
    for onnx, heed in (pair.split("=", 1) for pair in sys.argv[2:]):
        session, rng = onnxruntime_session(onnx), np.random.default_rng(0)
        shapes = {v.name: [size if isinstance(size, int) else batch for size in v.shape] for v in session.get_inputs()}
        inputs = {name: rng.uniform(1, 2, shape).astype(np.float32) for name, shape in shapes.items()}
        ours, theirs = least_of_both(session, inputs, heed, [f"batch={batch}"])
        print(f"{os.path.basename(onnx):30}{ours:10.2f}{theirs:16.2f}{theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
