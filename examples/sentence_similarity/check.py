#!/usr/bin/env python3
"""Compares the program's tokens and embeddings with those of tokenizers and transformers: check.py BUILD_DIR

BUILD_DIR holds sentence_similarity and sentence_similarity.heed. Tokens are compared on every character of Unicode within a word,
on random strings of characters, and on the sentences; embeddings on the sentences.
"""

import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from export import LONGEST, Encoder, folder_of_weights
from tokenizers import Tokenizer

HERE = Path(__file__).parent


def show(what: str, build: Path, lines: list[str]) -> list[list[str]]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        command = [build / "sentence_similarity", build / "sentence_similarity.heed", folder_of_weights() / "vocab.txt"]
        run = subprocess.run([*command, file.name, "--show", what], check=True, capture_output=True, text=True)
    return [line.split() for line in run.stdout.splitlines()]


def check_tokens(build: Path, tokenizer: Tokenizer, name: str, lines: list[str]) -> bool:
    different = []
    for line, found in zip(lines, show("tokens", build, lines), strict=True):
        expected = tokenizer.encode(line).ids
        if list(map(int, found)) != expected:
            different.append(f"{line!a}: {found}, expected {expected}")
    print(f"{name}: {len(lines)} lines, {len(different)} with other tokens", *different[:20], sep="\n  ")
    return not different


def main() -> None:
    build = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder_of_weights() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    sentences = (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    characters = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and c not in (0xA, 0xD)]
    common = [c for c in characters if ord(c) < 0x3000] + [chr(c) for c in range(0x4E00, 0x5200)] + 3000 * list(" aeinst")
    chance = random.Random(0)
    strings = ["".join(chance.choices(common, k=chance.randrange(1, 200))) for _ in range(2000)]
    words = ["un" * 49 + "a", "un" * 50, "un" * 50 + "a", " ".join(["word"] * 300), "don't (stop)!", "ÅNGSTRÖM e\u0301 naïve"]
    right = [
        check_tokens(build, tokenizer, "sentences", sentences + words),
        check_tokens(build, tokenizer, "each character", [f"a{c}b {c}" for c in characters]),
        check_tokens(build, tokenizer, "random characters", strings),
    ]

    model, worst = Encoder(folder_of_weights()).eval().double(), 0.0
    for sentence, found in zip(sentences, show("embeddings", build, sentences), strict=True):
        ids = torch.tensor([tokenizer.encode(sentence).ids])
        with torch.no_grad():
            mean = model(ids, torch.ones_like(ids), torch.zeros_like(ids))[0].mean(0).numpy()
        worst = max(worst, np.abs(np.array(found, float) - mean / np.linalg.norm(mean)).max())
    print(f"embeddings: {len(sentences)} sentences, largest difference from double precision {worst:.1e}")
    if not all(right) or worst > 1e-6:
        sys.exit(1)


if __name__ == "__main__":
    main()
