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


def onnxruntime_call(path: str, batch: int):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in value.shape]
        binding.bind_cpu_input(value.name, rng.uniform(1, 2, shape).astype(np.float32))
    for value in session.get_outputs():
        binding.bind_output(value.name)
    return lambda: session.run_with_iobinding(binding)


def least_us(call, seconds: float = 0.5) -> float:
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        least = min(least, time.perf_counter_ns() - start)
    return least / 1000


def main() -> None:
    batch = int(sys.argv[1])
    os.sched_setaffinity(0, {0})
    print(f"{'model':30}{'heed us':>10}{'onnxruntime us':>16}{'ratio':>8}   (batch {batch})")
    for onnx, heed in (pair.split("=", 1) for pair in sys.argv[2:]):
        call, ours, theirs = onnxruntime_call(onnx, batch), float("inf"), float("inf")
        command = ["build/heed", "bench", heed, "--dim", f"batch={batch}", "--json"]
        for _ in range(ROUNDS):
            theirs = min(theirs, least_us(call))
            ours = min(ours, json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["min_us"])
        print(f"{os.path.basename(onnx):30}{ours:10.2f}{theirs:16.2f}{theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
