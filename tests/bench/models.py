#!/usr/bin/env python3
"""Converts real models, runs them on their real inputs, compares and times them: writes docs/models.md.

    tests/bench/models.py SHARED [--minilm FOLDER] [--only NAME]... [-o docs/models.md]    (pip install onnx onnxruntime numpy)

SHARED holds models/ and their expected outputs. FOLDER holds exports of all-MiniLM-L6-v2: *.onnx, as
examples/sentence_similarity/export.py makes them; eager.npz and sdpa.npz, if there, have inputs and `out`. heed is build/heed.
The reference is the ONNX graph in double precision, node by node, by ONNX's own evaluator. Every demand that a model misses is
printed, and the exit code is then 1.
"""

import argparse
import base64
import dataclasses
import gzip
import json
import platform
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_conv_transpose

from against_onnxruntime import least_of_both, onnxruntime_session

ROOT = Path(__file__).resolve().parents[2]
HEED = ROOT / "build/heed"


@dataclasses.dataclass
class Model:
    name: str
    onnx: Path
    samples: list  # of {input: array}
    options: list = dataclasses.field(default_factory=list)
    # (heed's outputs, onnxruntime's), sample by sample -> what they are worth, and whether that is enough
    judge: callable = None
    double_samples: int = 1000  # the evaluator is slow: only the first ones
    timed: int = 0  # the sample that is timed
    timed_options: list = None  # where timing wants another file: a cache of one size
    timed_inputs: dict = dataclasses.field(default_factory=dict)
    dims: list = dataclasses.field(default_factory=list)  # of the timed run


# --- What they agree with ---------------------------------------------------------------------------------------------


def largest(found, expected) -> float:
    return max(float(np.abs(np.asarray(a, np.float64) - b).max()) for a, b in zip(found, expected, strict=True))


def agrees(expected: list, tolerance: float, name=None):
    """With arrays, one for each sample."""

    def judge(ours, theirs):
        error = largest([y[name or next(iter(y))] for y in ours], expected)
        return f"{error:.1e}", error <= tolerance

    return judge


def as_onnxruntime(tolerance: float):
    def judge(ours, theirs):
        error = max(largest(a.values(), [b[k] for k in a]) for a, b in zip(ours, theirs, strict=True))
        return f"{error:.1e} of onnxruntime", error <= tolerance

    return judge


def decibels(signal, found) -> float:
    signal, found = np.float64(signal), np.float64(found)
    return 10 * np.log10((signal**2).sum() / ((signal - found) ** 2).sum())


def sounds_like(audio, expected=None, of: str = "onnxruntime"):
    """`audio` makes a wave of a list of outputs; `expected` is one, or onnxruntime's."""

    def judge(ours, theirs):
        ratio = decibels(audio(theirs) if expected is None else expected, audio(ours))
        return f"{ratio:.0f} dB of {of}", ratio >= 50

    return judge


# --- The models -------------------------------------------------------------------------------------------------------


def read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def voice(folder: Path):
    speech = read_wave(folder / "speech_test.wav")
    padded = np.concatenate([np.zeros(64, np.float32), speech])  # a frame is 512 samples, and the 64 before
    frames = [{"input": padded[None, at : at + 576]} for at in range(0, len(speech) - 511, 512)]
    yield Model("Silero VAD, LSTM", folder / "vad_lstm_16k.onnx", frames, ["--set", "sr=16000", "--dim", "sequence=576"],
                as_onnxruntime(1e-4), 200, timed_inputs={"sr": np.array(16000)})
    lengths = (1536, 2000, 4000, 8000, 15999, 16000)
    yield Model("Silero VAD, attention", folder / "vad_attention_16k.onnx", [{"input": speech[None, 16000:][:, :n]} for n in lengths],
                ["--dim", "samples=1536..16000"], as_onnxruntime(1e-4), timed=2, dims=["samples=4000"])


def noise(folder: Path, mix: np.ndarray):
    blocks = np.lib.stride_tricks.sliding_window_view(mix, 512)[::128]
    spectra = np.fft.rfft(blocks)
    magnitudes = [{"input_2": np.abs(s).astype(np.float32)[None, None]} for s in spectra]
    yield Model("DTLN, first half", folder / "model_1.onnx", magnitudes, [], sounds_like(lambda ys: [y["activation_2"] for y in ys]), 200)
    # What the first half lets through is what the second hears.
    masks = [y["activation_2"][0] for y in run_onnxruntime(onnxruntime_session(str(folder / "model_1.onnx")), magnitudes,
                                                         {"input_3": ("tf_op_layer_stack_2", (1, 2, 128, 2))})]
    heard = [{"input_4": np.fft.irfft(s * m).astype(np.float32)[None]} for s, m in zip(spectra, masks)]

    def overlapped(outputs):
        audio = np.zeros(128 * (len(outputs) - 1) + 512)
        for i, y in enumerate(outputs):
            audio[128 * i : 128 * i + 512] += y["conv1d_3"].ravel()
        return audio

    yield Model("DTLN, second half", folder / "model_2.onnx", heard, [], sounds_like(overlapped), 200)


def enhancement(folder: Path, mix: np.ndarray):
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    padded = np.pad(np.float64(mix), 256, mode="reflect")
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 512)[::256] * window)
    frames = [{"mix": np.stack([s.real, s.imag], -1).astype(np.float32)[None, :, None]} for s in spectra]

    def audio(outputs):
        sound, weight = np.zeros(256 * (len(outputs) + 1)), np.zeros(256 * (len(outputs) + 1))
        for i, y in enumerate(outputs):
            part = y["enh"][0, :, 0].astype(np.float64)
            sound[256 * i : 256 * i + 512] += np.fft.irfft(part[:, 0] + 1j * part[:, 1]) * window
            weight[256 * i : 256 * i + 512] += window**2
        return (sound[256:-256] / weight[256:-256])[: 256 * (len(outputs) - 1)]

    yield Model("GTCRN", folder / "gtcrn.onnx", frames, [], sounds_like(audio, read_wave(folder / "enh_stream.wav"), "enh_stream.wav"), 60)


def file_types(folder: Path):
    config = json.loads((folder / "config.min.json").read_text())
    with gzip.open(folder / "standard_v3_3-inference_examples_by_content.json.gz") as file:
        examples = [e for e in json.load(file) if e["prediction"]["dl"] != "undefined"]  # the others need no model
    samples = []
    for example in examples:
        content, pad = base64.b64decode(example["content_base64"]), config["padding_token"]
        begin, end = content[: config["block_size"]].lstrip()[: config["beg_size"]], content[-config["block_size"] :].rstrip()[-config["end_size"] :]
        row = [*begin] + [pad] * (config["beg_size"] - len(begin)) + [pad] * (config["end_size"] - len(end)) + [*end]
        samples.append({"bytes": np.array([row], np.int32)})

    def judge(ours, theirs):
        right = 0
        for y, example in zip(ours, examples, strict=True):
            scores, wanted = y["target_label"][0], example["prediction"]
            right += config["target_labels_space"][scores.argmax()] == wanted["dl"] and abs(scores.max() - wanted["score"]) < 0.01
        return f"{right} of {len(examples)} predictions", right == len(examples)

    yield Model("magika", folder / "standard_v3_3.onnx", samples, ["--dim", "bytes:0=1"], judge, 20)


def story(folder: Path):
    expected = np.load(folder / "expected.npz")
    tokens, greedy = expected["tokens"], expected["greedy_tokens"]
    yield Model("stories260K, prefill", folder / "stories260k_prefill.onnx", [{"tokens": tokens}], ["--dim", "tokens=1..256"],
                agrees([expected["logits"]], 1e-4), dims=["tokens=33"])
    raw, pieces = (folder / "tok512.bin").read_bytes(), []
    at = 4
    while at < len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        pieces.append(re.sub(rb"^<0x(..)>$", lambda m: bytes.fromhex(m[1].decode()), raw[at + 8 : at + 8 + size]))
        at += 8 + size
    told = re.search(r"-t 0\.0\n(.*?)\n```", (folder / "readme.md").read_text(), re.S)[1]

    def judge(ours, theirs):
        found = [int(y["logits"].argmax()) for y in ours]
        text = b"".join(pieces[t] for t in found).lstrip(b" ").decode()
        # The tokens fed are the greedy ones, so that each choice being theirs means generating them.
        same = found == [int(t) for t in greedy[1:257]] and told.startswith(text)
        return f"{len(text)} letters" if same else "another text", same

    steps = [{"token": np.array([[t]]), "position": np.array([[i]])} for i, t in enumerate(greedy[:256])]
    past = {f"past_key_values.{i}.{part}": np.zeros((1, 4, 128, 8), np.float32) for i in range(5) for part in ("key", "value")}
    yield Model("stories260K, step", folder / "stories260k_step.onnx", steps, ["--dim", "past=0..511"], judge, timed=128,
                timed_options=["--dim", "past=128", "--state", "none"], timed_inputs=past)


def encoder(folder: Path):
    for path in sorted(folder.glob("*.onnx")):
        kind = folder / ("sdpa.npz" if "sdpa" in path.name else "eager.npz")
        expected = dict(np.load(kind)) if kind.exists() else {}
        out = expected.pop("out", None)
        samples = [expected] if expected else []
        rng = np.random.default_rng(0)
        for length in (1, 128, 256):
            ids, mask = rng.integers(1000, 20000, (1, length)), np.ones((1, length), np.int64)
            mask[0, 1 + length * 3 // 4 :] = 0
            samples.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})

        def judge(ours, theirs, out=out):
            if out is None:
                return as_onnxruntime(1e-4)(ours, theirs)
            return agrees([out], 1e-5, "last_hidden_state")(ours[:1], theirs)

        yield Model("MiniLM, " + path.stem.removeprefix("minilm_").replace("_", ", "), path, samples, ["--dim", "tokens=1..256"], judge,
                    timed=len(samples) - 2, dims=["tokens=128"])


def stock(folder: Path):
    expected = np.load(folder / "expected.npz")
    inputs = [name for name in expected if name not in ("lstm_attention", "transformer")]
    for name in ("lstm_attention", "transformer"):
        path = folder / f"{name}.onnx"
        names = [i.name for i in onnxruntime_session(str(path)).get_inputs()]
        assert set(names) <= set(inputs)
        samples = [{n: expected[n][i : i + 1].astype(np.float32) for n in names} for i in range(64)]
        yield Model(f"stock forecast, {name}", path, samples, ["--dim", "batch=1..64"],
                    agrees([expected[name][i : i + 1] for i in range(64)], 5e-3), dims=["batch=1"])


def all_models(shared: Path, minilm):
    models = shared / "models"
    yield from stock(ROOT / "examples/stock_forecast")
    yield from voice(models / "silero")
    mix = read_wave(models / "gtcrn/mix.wav")
    yield from noise(models / "dtln", mix)
    yield from enhancement(models / "gtcrn", mix)
    yield from file_types(models / "magika")
    expected = np.load(models / "kwt1/expected.npz")
    yield Model("KWT-1", models / "kwt1/kwt1.onnx", [{"input_1": x[None]} for x in expected["input_1"]], [],
                agrees([y[None] for y in expected["logits"]], 1e-3))
    expected = np.load(models / "limu_bert/expected.npz")
    yield Model("LIMU-BERT", models / "limu_bert/limu_bert.onnx", [{"window": x[None]} for x in expected["window"]], [],
                agrees([y[None] for y in expected["features"]], 1e-4, "features"))
    expected = np.load(models / "sasrec/expected.npz")
    yield Model("SASRec", models / "sasrec/sasrec.onnx", [{"items": expected[f"items{i}"]} for i in range(4)], ["--dim", "length=1..200"],
                agrees([expected[f"scores{i}"] for i in range(4)], 1e-4), timed=3, dims=["length=200"])
    yield from story(models / "stories260k")
    if minilm:
        yield from encoder(minilm)


# --- Three ways to run them -------------------------------------------------------------------------------------------


def heed(*arguments) -> str:
    done = subprocess.run([HEED, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def run_heed(file: Path, samples: list, sequence: bool) -> list:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(inputs, **{f"{name}/{i}": array for i, sample in enumerate(samples) for name, array in sample.items()})
        heed("run", file, "--input", inputs, "--output", outputs, *["--sequence"] * sequence)
        arrays = np.load(outputs)
        names = dict.fromkeys(key.rsplit("/", 1)[0] for key in arrays)
        return [{name: arrays[f"{name}/{i}"] for name in names} for i in range(len(samples))]


def in_turn(run, samples: list, states: dict) -> list:
    """run(inputs) -> {output: array}; `states` is {input: (output, first shape)}."""
    held = {name: np.zeros(shape, np.float32) for name, (_, shape) in states.items()}
    results = []
    for sample in samples:
        outputs = run(sample | held)
        held = {name: outputs.pop(output) for name, (output, _) in states.items()}
        results.append(outputs)
    return results


def run_onnxruntime(session, samples: list, states: dict, constants: dict = {}) -> list:
    names = [o.name for o in session.get_outputs()]
    return in_turn(lambda inputs: dict(zip(names, session.run(names, inputs | constants))), samples, states)


def to_double(graph) -> None:
    """Every float32 of the graph, its constants and its casts becomes float64."""
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

    def widen(tensor):
        if tensor.data_type == single:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

    for tensor in graph.initializer:
        widen(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == single:
                attribute.i = double
            elif attribute.type == onnx.AttributeProto.TENSOR:
                widen(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                to_double(attribute.g)


class GlobalMaxPool(OpRun):  # ONNX's own takes the wrong axes but in two dimensions (1.23)
    op_domain = ""

    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class BatchNormalization(OpRun):  # ONNX's own trains, in opsets below 14 (1.23)
    op_domain = ""

    def _run(self, x, scale, bias, mean, variance, epsilon=1e-5, **_):
        scale, bias, mean, variance = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, variance))
        return ((x - mean) / np.sqrt(variance + epsilon) * scale + bias,)


class ConvTranspose(op_conv_transpose.ConvTranspose):  # ONNX's own mixes groups up (1.23)
    op_domain = ""

    def _run(self, x, w, b=None, group=1, **attributes):
        parts = zip(np.split(x, group, 1), np.split(w, group))
        y = np.concatenate([super(ConvTranspose, self)._run(*part, group=1, **attributes)[0] for part in parts], 1)
        return (y if b is None else y + b.reshape(-1, *[1] * (x.ndim - 2)),)


def run_double(path: Path, samples: list, states: dict, constants: dict) -> list:
    model = onnx.load(path)
    to_double(model.graph)
    for function in model.functions:
        to_double(function)
    evaluator = ReferenceEvaluator(model, new_ops=[GlobalMaxPool, BatchNormalization, ConvTranspose])

    def run(inputs):
        wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in (inputs | constants).items()}
        outputs = evaluator.run(None, wide, intermediate=True)
        single = [k for k, v in outputs.items() if getattr(v, "dtype", None) == np.float32]
        assert not single, f"{path}: {single[:5]} are float32"
        return {name: outputs[name] for name in evaluator.output_names}

    return in_turn(run, samples, states)


# --- The table --------------------------------------------------------------------------------------------------------


def row(model: Model, folder: Path) -> tuple:
    file, written = folder / "model.heed", folder / "report.json"
    heed("convert", model.onnx, "-o", file, "--report", written, *model.options)
    report = json.loads(written.read_text())
    before, after = (sum(report[key].values()) for key in ("onnx_operators", "heed_operators"))
    additive = sum(missed["found"].startswith("additive attention") for missed in report["missed"])  # is none to fuse
    attention, fused = report["attentions"] - additive, sum(each["concept"] == "attention" for each in report["fused"])
    memory = report["memory"]
    ratio = memory["workspace"] / memory["lower_bound"]
    states = {s["name"]: (s["output"], [n if isinstance(n, int) else 0 for n in s["shape"]]) for s in report["states"]}

    session = onnxruntime_session(str(model.onnx))
    constants = {k: v for k, v in model.timed_inputs.items() if k not in states}
    ours = run_heed(file, model.samples, bool(states))
    theirs = run_onnxruntime(session, model.samples, states, constants)
    agreement, agreed = model.judge(ours, theirs)
    exact = run_double(model.onnx, model.samples[: model.double_samples], states, constants)
    errors = [max(largest(y.values(), [x[k] for k in y]) for y, x in zip(outputs, exact)) for outputs in (ours, theirs)]

    inputs = model.samples[model.timed] | {k: np.zeros(shape, np.float32) for k, (_, shape) in states.items()} | model.timed_inputs
    if model.timed_options:
        heed("convert", model.onnx, "-o", file, *model.timed_options)
    times = least_of_both(session, inputs, str(file), model.dims, str(HEED))

    misses = []
    if fused != attention:
        misses.append(f"attention is fused {fused} of {attention}")
    if report["seconds"] > 3:
        misses.append(f"conversion takes {report['seconds']:.1f} s")
    if report["peak_memory"] > max(3 * model.onnx.stat().st_size, 64 << 20):
        misses.append(f"conversion takes {report['peak_memory'] / model.onnx.stat().st_size:.1f} times the model's bytes")
    if ratio > 1.1:
        misses.append(f"workspace is {ratio:.2f} times its lower bound")
    if not agreed:
        misses.append(f"agreement: {agreement}")
    if errors[0] > 2 * errors[1]:
        misses.append(f"its error is {errors[0] / errors[1]:.2f} times onnxruntime's")
    if times[0] > times[1]:
        misses.append(f"onnxruntime is {times[0] / times[1]:.2f} times as fast")
    cells = [model.name, f"{report['seconds']:.2f}", f"{before} → {after}", f"{fused} of {attention}" if attention else "", f"{memory['workspace']:,}", f"{ratio:.2f}",
             agreement, f"{errors[0]:.1e}", f"{errors[1]:.1e}", f"{errors[0] / errors[1]:.2f}", f"{times[0]:.1f}", f"{times[1]:.1f}",
             f"{times[1] / times[0]:.2f}"]
    return cells, misses


def page(rows: list, misses: list) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    head = ["model", "seconds", "operators", "attention", "workspace", "of its bound", "agreement", "error", "onnxruntime's", "ratio", "µs",
            "onnxruntime's", "speed"]
    lines = ["# Real models", "",
             "Made by `tests/bench/models.py`, which converts each model from its exporter's ONNX file, runs it on real inputs and compares it.", "",
             "- **seconds** that the conversion takes.",
             "- **operators**: nodes of the ONNX graph, and operators of the file. **attention**: fused, of all softmaxes that weight a sum.",
             "- **workspace**: bytes, and as a multiple of the lower bound: what is alive at the worst moment.",
             "- **agreement** with the source framework's outputs, or what is named: largest difference, or signal to noise.",
             "- **error**: largest difference from the ONNX graph evaluated in double precision, heed's and onnxruntime's.",
             f"- **µs**: least time of a run, one thread, in turn with onnxruntime {onnxruntime.__version__}, on {cpu[1] if cpu else platform.machine()}.",
             "  Sizes: one sample; MiniLM 128 tokens, SASRec 200 items, stories260K 33 tokens (prefill) and a cache of 128 (step), Silero's",
             "  attention 4,000 samples.", "",
             "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    if misses:
        lines += ["", "What falls short:", ""] + [f"- {miss}" for miss in misses]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--only", action="append", default=[], help="models whose names contain this")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows, misses = [], []
    with tempfile.TemporaryDirectory() as folder:
        for model in all_models(arguments.shared, arguments.minilm):
            if arguments.only and not any(part in model.name for part in arguments.only):
                continue
            cells, missed = row(model, Path(folder))
            print(" | ".join(cells), flush=True)
            for miss in missed:
                print(f"  MISSES: {miss}", flush=True)
            rows.append(cells)
            misses += [f"{model.name}: {miss}" for miss in missed]
    if arguments.output:
        arguments.output.write_text(page(rows, misses))
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
