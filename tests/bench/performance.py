#!/usr/bin/env python3
"""Measures kernels and models against the machine's roof, and writes docs/performance.md. ./dev bench calls it.

    tests/bench/performance.py [--shared SHARED] [--peers RESULTS.jsonl] [-o docs/performance.md]

Wants build/heed and build/heed_bench_kernels (HEED_BENCHMARKS=ON). SHARED holds models/: real models beside the examples' own.
RESULTS.jsonl is what a comparison of runtimes measured: one JSON object a line with `model`, `peer` and `min_us`, of models that
were judged also `cos_min`.
"""

import argparse
import collections
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEED, KERNELS = ROOT / "build/heed", ROOT / "build/heed_bench_kernels"
ISAS = ["avx2", "avxvnni", "avx512", "avx512vnni", "neon", "dotprod", "i8mm"]
ROUNDS = 3  # of which the best counts: others use the machine too
SHOWN = r"/(matmul|matmul_i8|conv|lstm|gru)/|/attention(_i8)?/.*rows:24"


def output_of(*command) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def table(head: list, rows: list) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def compiler() -> str:
    cache = (ROOT / "build/CMakeCache.txt").read_text()
    return output_of(re.search(r"CMAKE_CXX_COMPILER:\w+=(.*)", cache)[1], "--version").splitlines()[0]


# --- Kernels ----------------------------------------------------------------------------------------------------------


def kernels() -> str:
    found = collections.defaultdict(dict)  # kernel and shape: instruction set: (share, GMAC/s)
    for i in range(ROUNDS):
        print(f"kernels, round {i + 1} of {ROUNDS}", file=sys.stderr)
        result = json.loads(output_of(KERNELS, f"--benchmark_filter={SHOWN}", "--benchmark_min_time=0.03", "--benchmark_format=json"))
        for run in result["benchmarks"]:
            isa, name = run["name"].split("/", 1)
            found[name][isa] = max(found[name].get(isa, (0, 0)), (run["share"], run["GMAC/s"]))
    isas = [isa for isa in ISAS if any(isa in of_isa for of_isa in found.values())]
    rows = [[f"`{name}`", *(f"{of_isa[isa][0]:.0%}, {of_isa[isa][1]:.0f}" for isa in isas)] for name, of_isa in found.items()]
    return table(["kernel", *isas], rows)


# --- Models -----------------------------------------------------------------------------------------------------------


def models(shared: Path | None):
    examples = ROOT / "examples"
    yield "stock forecast, LSTM", examples / "stock_forecast/lstm_attention.onnx", ["--dim", "batch=1"]
    yield "stock forecast, transformer", examples / "stock_forecast/transformer.onnx", ["--dim", "batch=1"]
    yield "Silero VAD, LSTM", examples / "voice_activity/vad_lstm_16k.onnx", ["--dim", "sequence=576", "--set", "sr=16000"]
    yield "stories260K, step", examples / "tiny_story/stories260k_step.onnx", ["--dim", "past=0..511"]
    if shared is None:
        return
    real = shared / "models"
    yield "Silero VAD, attention", real / "silero/vad_attention_16k.onnx", ["--dim", "samples=4000"]
    yield "DTLN, first half", real / "dtln/model_1.onnx", []
    yield "DTLN, second half", real / "dtln/model_2.onnx", []
    yield "GTCRN", real / "gtcrn/gtcrn.onnx", []
    yield "magika", real / "magika/standard_v3_3.onnx", ["--dim", "bytes:0=1"]
    yield "KWT-1", real / "kwt1/kwt1.onnx", []
    yield "LIMU-BERT", real / "limu_bert/limu_bert.onnx", []
    yield "SASRec", real / "sasrec/sasrec.onnx", ["--dim", "length=200"]
    yield "stories260K, prefill", real / "stories260k/stories260k_prefill.onnx", ["--dim", "tokens=33"]


def timed(shared: Path | None) -> str:
    rows, isas = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, onnx, options in models(shared):
            print(name, file=sys.stderr)
            files = {}
            for kind in ("none", "int8"):
                files[kind] = Path(folder, f"{kind}.heed")
                output_of(HEED, "convert", onnx, "-o", files[kind], *options, "--quantize", kind)
            if not isas:
                isas = [isa for isa in ISAS if subprocess.run([HEED, "bench", files["none"], "--isa", isa], capture_output=True).returncode == 0]
            row = [name]
            for isa in isas:
                best = {}
                for _ in range(ROUNDS):
                    for kind, file in files.items():
                        run = json.loads(output_of(HEED, "bench", file, "--isa", isa, "--json"))
                        if kind not in best or run["min_us"] < best[kind]["min_us"]:
                            best[kind] = run
                whole, eight = best["none"], best["int8"]
                share = eight["of_roof"] * eight["median_us"] / eight["min_us"]
                row.append(f"{whole['min_us']:.1f} → {eight['min_us']:.1f} ({whole['min_us'] / eight['min_us']:.2f}; {share:.0%})")
            rows.append(row)
    return table(["model", *isas], rows)


# --- Peers ------------------------------------------------------------------------------------------------------------


def peers(results: Path) -> str:
    least = collections.defaultdict(dict)
    cosine = {}
    for line in results.read_text().splitlines():
        run = json.loads(line)
        if "min_us" in run:
            of_model = least[run["model"]]
            of_model[run["peer"]] = min(run["min_us"], of_model.get(run["peer"], run["min_us"]))
            if "cos_min" in run:
                cosine[run["model"], run["peer"]] = run["cos_min"]
    text = ""
    for model, of_model in least.items():
        best = min(of_model.values())
        rows = [[peer, f"{us:.1f}", f"{us / best:.2f}", f"{cosine[model, peer]:.5f}" if (model, peer) in cosine else ""]
                for peer, us in sorted(of_model.items(), key=lambda item: item[1])]
        text += f"### {model}\n\n" + table(["runtime", "µs", "of the fastest", "worst cosine to float"], rows) + "\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--versions", default="", help="of the peers, in words")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/performance.md")
    arguments = parser.parse_args()
    text = f"""# Performance

Made by `./dev bench` on {datetime.date.today()}: one core of {processor()}, one thread, {compiler()}. Times are the best of
several runs in turn, since others use such machines too.

## Kernels

Of each kernel and instruction set: its share of the roof, and 10⁹ multiply-accumulates a second. The roof is the most that
independent multiply-adds in registers do, of floats for float and of the int8 instructions for `_i8`, measured on the same core just
before and after. Only products count as work, so packing, exponentials, activations and quantisation lower the share. int8 has no
kernels of its own for `avx512`: those of `avx2` run there. `matmul 128x384x1536`: rows, terms, columns; `to_i8`: the result
quantised for the next layer. `attention 12x512x512x64`: heads, queries, keys, channels.

{kernels()}
## Models

Of each model and instruction set: float → int8 in microseconds a run, how many times as fast int8 is, and int8's share of the roofs.

{timed(arguments.shared)}"""
    if arguments.peers:
        text += f"""
## Other runtimes

The same models and inputs, one thread on the same core, least of interleaved rounds. {arguments.versions}

{peers(arguments.peers)}"""
    arguments.output.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
