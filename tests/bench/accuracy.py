#!/usr/bin/env python3
"""What int8 costs real models on real data, against the same model in float. Every demand that is missed is printed, and the exit
code is then 1.

    tests/bench/accuracy.py SHARED [--minilm MODEL.onnx --vocabulary vocab.txt] [--only NAME]... [--convert=OPTION]...

SHARED holds models/ and data/. MODEL.onnx is an export of all-MiniLM-L6-v2 whose dimension is `tokens`. OPTION goes to `heed convert`,
beside --quantize int8: --convert=--keep-float=NAME. heed is build/heed. (pip install numpy scipy onnx onnxruntime tokenizers)
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from models import ROOT, file_types, heed, read_wave, run_heed


def cosines(a, b):
    return np.array([float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())) for x, y in zip(a, b)])


def spread(found):
    return f"cosine {found.mean():.5f} in the mean, {found.min():.5f} at worst"


# --- The models: name, ONNX file, options, samples, and a judge of the outputs in float and in int8 -> words, enough? ---------------


def sentences(model: Path, vocabulary: Path, shared: Path):
    from tokenizers import BertWordPieceTokenizer

    speeches = [s.split(":\n", 1)[-1] for s in (shared / "data/tinyshakespeare/input.txt").read_text().split("\n\n") if len(s) > 30]
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_truncation(128)
    samples = []
    for speech in speeches[:: len(speeches) // 200][:200]:
        ids = np.array([tokenizer.encode(speech).ids])
        samples.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})

    def judge(expected, found):
        found = cosines(*([y["last_hidden_state"][0].mean(0) for y in each] for each in (expected, found)))
        return spread(found) + " of 200 sentences", found.mean() >= 0.999 and found.min() >= 0.997

    return "MiniLM", model, ["--dim", "tokens=1..128"], samples, judge


def magika(shared: Path):
    model = next(file_types(shared / "models/magika"))

    def judge(expected, found):
        labels = [[y["target_label"][0].argmax() for y in each] for each in (expected, found)]
        same = sum(a == b for a, b in zip(*labels, strict=True))
        return f"{same} of {len(found)} predictions are float's, which are all as expected", same == len(found)

    return "magika", model.onnx, model.options, model.samples, judge


def words(shared: Path):
    samples = []
    for path in sorted((shared / "data/spoken_digits").glob("*.wav")):
        audio = resample_poly(read_wave(path), 2, 1)[:16000]  # as models/export/kwt1.py does
        samples.append({"input_1": np.pad(audio, (0, 16000 - len(audio))).astype(np.float32)[None]})

    def judge(expected, found):
        same = [np.argmax(*a.values()) == np.argmax(*b.values()) for a, b in zip(expected, found, strict=True)]
        return f"the same word for {sum(same)} of {len(same)} recordings", np.mean(same) >= 0.99

    return "KWT-1", shared / "models/kwt1/kwt1.onnx", [], samples, judge


def recommendations(shared: Path):
    random = np.random.default_rng(0)
    samples = [{"items": random.integers(1, 3417, (1, random.integers(5, 201)))} for _ in range(500)]

    def judge(expected, found):
        best = [[set(np.argsort(-y["scores"][0])[:10]) for y in each] for each in (expected, found)]
        same = np.mean([len(a & b) / 10 for a, b in zip(*best, strict=True)])
        return f"{100 * same:.1f} % of the ten best items of 500 sequences are the same", same >= 0.95

    return "SASRec", shared / "models/sasrec/sasrec.onnx", ["--dim", "length=1..200"], samples, judge


def motions(shared: Path):
    lines = [line for part in ("TRAIN", "TEST") for line in
             (shared / f"data/sktime/BasicMotions_{part}.ts").read_text().split("@data\n")[1].splitlines()]
    recordings = np.array([[channel.split(",") for channel in line.split(":")[:6]] for line in lines], np.float64)
    windows = resample_poly(recordings.transpose(0, 2, 1), 2, 1, axis=1)[:, :120]  # as models/export/limu_bert.py does
    windows[..., :3] /= 9.8

    def judge(expected, found):
        found = cosines(*([y["features"] for y in each] for each in (expected, found)))
        return spread(found) + f" of {len(found)} windows", found.mean() >= 0.999

    return "LIMU-BERT", shared / "models/limu_bert/limu_bert.onnx", [], [{"window": w[None].astype(np.float32)} for w in windows], judge


def stocks():
    folder = ROOT / "examples/stock_forecast"
    price = np.genfromtxt(folder / "sp500.csv", delimiter=",", skip_header=1)[:, -1].astype(np.float32)
    first = len(price) * 4 // 5  # the days that no model was trained on
    windows = np.lib.stride_tricks.sliding_window_view(price, 5)[first - 5 : -1]

    def judge(expected, found):
        errors = [np.sqrt(np.mean((np.concatenate([y["forecast"] for y in each]).ravel() - price[first:]) ** 2)) for each in (expected, found)]
        return f"error {errors[1]:.3f} dollars, in float {errors[0]:.3f}", errors[1] <= 1.02 * errors[0]

    for name in ("lstm_attention", "transformer"):
        yield f"stock forecast, {name}", folder / f"{name}.onnx", ["--dim", "batch=1"], [{"window": w[None]} for w in windows], judge


def story(shared: Path):
    tokens = np.load(shared / "models/stories260k/expected.npz")["greedy_tokens"][:257]

    def judge(expected, found):
        def perplexity(outputs):
            logits = outputs[0]["logits"][0].astype(np.float64)
            loss = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[np.arange(256), tokens[1:]]
            return np.exp(loss.mean())

        in_float, in_int8 = perplexity(expected), perplexity(found)
        return f"perplexity {in_int8:.4f}, in float {in_float:.4f}", in_int8 <= 1.02 * in_float

    path = shared / "models/stories260k/stories260k_prefill.onnx"
    return "stories260K", path, ["--dim", "tokens=1..256"], [{"tokens": tokens[None, :256]}], judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--only", action="append", default=[], help="models whose names contain this")
    parser.add_argument("--convert", action="append", default=[], help="an option of heed convert")
    arguments = parser.parse_args()
    shared = arguments.shared
    models = [magika(shared), words(shared), recommendations(shared), motions(shared), *stocks(), story(shared)]
    if arguments.minilm:
        models.insert(0, sentences(arguments.minilm, arguments.vocabulary, shared))
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, onnx, options, samples, judge in models:
            if arguments.only and not any(part in name for part in arguments.only):
                continue
            outputs = []
            for extra in ([], ["--quantize", "int8", *arguments.convert]):
                file = Path(folder, "model.heed")
                heed("convert", onnx, "-o", file, *options, *extra)
                outputs.append(run_heed(file, samples, False))
            text, enough = judge(*outputs)
            missed = missed or not enough
            print(f"{name}: {text}{'' if enough else '  MISSES'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
