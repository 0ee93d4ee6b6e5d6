#!/usr/bin/env python3
"""Compares probabilities that voice_activity wrote with onnxruntime's: check.py PROBABILITIES.csv

check.py --make writes onnxruntime's as expected.csv.
"""

import csv
import sys
import wave
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent
FRAME, CONTEXT, RATE = 512, 64, 16_000


def listen() -> np.ndarray:  # [frames]
    """A frame at a time behind the last samples of the one before, as Silero's own wrapper hands them to the model."""
    with wave.open(str(HERE / "speech_test.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    samples = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
    session = onnxruntime.InferenceSession(HERE / "vad_lstm_16k.onnx")
    state, probability = np.zeros((2, 1, 128), np.float32), []
    for at in range(0, len(samples) - CONTEXT, FRAME):
        window = samples[None, at : at + CONTEXT + FRAME]
        output, state = session.run(None, {"input": window, "state": state, "sr": np.array(RATE)})
        probability.append(output[0, 0])
    return np.array(probability)


def main() -> None:
    expected = listen()
    if sys.argv[1] == "--make":
        (HERE / "expected.csv").write_text("probability\n" + "".join(f"{p:.6f}\n" for p in expected))
        return
    with open(sys.argv[1], newline="") as file:
        found = np.array([float(row["probability"]) for row in csv.DictReader(file)])
    difference = np.abs(found - expected).max()
    print(f"{len(found)} frames, largest difference from onnxruntime {difference:.1e}")
    if difference > 1e-5:
        sys.exit(1)


if __name__ == "__main__":
    main()
