#!/usr/bin/env python3
"""Draws probabilities of speech over the recording: plot.py OUT.png SPEECH.wav PROBABILITIES.csv"""

import csv
import sys
import wave

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    out, recording, probabilities = sys.argv[1:]
    with wave.open(recording) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    with open(probabilities, newline="") as file:
        rows = list(csv.DictReader(file))
    seconds, probability, speech = (np.array([float(row[name]) for row in rows]) for name in rows[0])
    frame = seconds[1] - seconds[0]

    lines = 2  # the recording in as many parts, one below the other
    length = len(samples) / rate / lines
    figure, axes = plt.subplots(lines, 1, figsize=(11, 2.2 * lines), constrained_layout=True)
    for part, axis in enumerate(axes):
        axis.fill_between(seconds, -1.05, 1.05, where=speech > 0, step="post", color="C2", alpha=0.2, linewidth=0)
        axis.plot(np.arange(len(samples)) / rate, samples, color="0.6", linewidth=0.3)
        axis.plot(seconds + frame / 2, probability, color="C3", linewidth=0.8)
        axis.set_xlim(part * length, (part + 1) * length)
        axis.set_ylim(-1.05, 1.05)
    axes[0].set_title("recording (grey), probability of speech (red), what is taken for speech (green)", fontsize=10)
    axes[-1].set_xlabel("seconds")
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    main()
