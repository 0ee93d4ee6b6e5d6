#!/usr/bin/env python3
"""Exports stories260K as one step of a Llama with a key/value cache, and checks the file by telling the story.

stories260K is a checkpoint of llama2.c (its tinyllamas, `stories260K/stories260K.pt`): 5 layers, 8 query heads and 4
key/value heads of 8 channels, rotary positions over adjacent pairs, RMSNorm, SwiGLU, embedding and output tied.
"""

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, LENGTH = 64, 172, 5, 8, 4, 512, 512
HEAD = DIM // HEADS

Cache = tuple[Tensor, Tensor]  # keys and values, each [1, KV_HEADS, past, HEAD]


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # [1, T, heads, HEAD], [T, HEAD / 2]: adjacent pairs
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def repeat(x: Tensor) -> Tensor:  # [1, KV_HEADS, T, HEAD] -> [1, HEADS, T, HEAD]
    return x[:, :, None].expand(-1, -1, HEADS // KV_HEADS, -1, -1).flatten(1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wo = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.wk, self.wv = (nn.Linear(DIM, KV_HEADS * HEAD, bias=False) for _ in range(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Cache) -> tuple[Tensor, Cache]:
        q, k, v = (linear(x).unflatten(-1, (-1, HEAD)) for linear in (self.wq, self.wk, self.wv))
        q, k, v = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2), v.transpose(1, 2)
        k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        weights = F.softmax(q @ repeat(k).transpose(2, 3) / HEAD**0.5, dim=-1)
        return self.wo((weights @ repeat(v)).transpose(1, 2).flatten(2)), (k, v)


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(DIM, HIDDEN, bias=False), nn.Linear(DIM, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(), FeedForward()
        self.attention_norm, self.ffn_norm = RMSNorm(), RMSNorm()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Cache) -> tuple[Tensor, Cache]:
        y, present = self.attention(self.attention_norm(x), cos, sin, past)
        x = x + y
        return x + self.feed_forward(self.ffn_norm(x)), present


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings, self.output = nn.Embedding(VOCABULARY, DIM), nn.Linear(DIM, VOCABULARY, bias=False)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), RMSNorm()
        frequency = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
        angle = torch.outer(torch.arange(LENGTH).float(), frequency)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, token: Tensor, position: Tensor, past_key_values: list[Cache]) -> tuple[Tensor, list[Cache]]:
        x, presents = self.tok_embeddings(token), []
        for layer, past in zip(self.layers, past_key_values):
            x, present = layer(x, self.cos[position[0]], self.sin[position[0]], past)
            presents.append(present)
        return self.output(self.norm(x)), presents


def empty(length: int) -> list[Cache]:
    return [(torch.zeros(1, KV_HEADS, length, HEAD), torch.zeros(1, KV_HEADS, length, HEAD)) for _ in range(LAYERS)]


def export(model: Step, path: Path) -> None:
    past = torch.export.Dim("past", min=1, max=LENGTH - 1)  # the exporter takes no 0, the file does
    names = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore"):  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            model, (torch.tensor([[1]]), torch.tensor([[5]]), empty(5)), dynamo=True, opset_version=18, verbose=False,
            input_names=["token", "position"] + [f"past_key_values.{name}" for name in names],
            output_names=["logits"] + [f"present.{name}" for name in names],
            dynamic_shapes={"token": {}, "position": {}, "past_key_values": [({2: past}, {2: past})] * LAYERS},
        )  # fmt: skip
    for node in program.model.graph.all_nodes():  # stack traces hold the paths of this machine
        node.metadata_props.clear()
    program.save(path, external_data=False)


def check(model: Step, path: Path, tokens: int = 256) -> None:
    """A story token by token from an empty cache: onnxruntime and PyTorch choose the same tokens, of nearly the same logits."""
    session = onnxruntime.InferenceSession(path)
    names = [port.name for port in session.get_inputs()]
    flat = [part.numpy() for pair in empty(0) for part in pair]
    past, token, worst = empty(0), 1, 0.0
    for position in range(tokens):
        inputs = [np.array([[token]]), np.array([[position]])]
        found, *flat = session.run(None, dict(zip(names, inputs + flat)))
        with torch.no_grad():
            logits, past = model(*map(torch.from_numpy, inputs), past)
        worst = max(worst, np.abs(found - logits.numpy()).max())
        token = int(logits.argmax())
        assert token == found.argmax()
    print(f"{path.name}: {tokens} tokens as PyTorch chooses them, largest difference of a logit {worst:.1e}")
    assert worst < 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="stories260K.pt")
    parser.add_argument("--output", type=Path, default=HERE / "stories260k_step.onnx")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)["model"]
    model = Step().eval()
    model.load_state_dict({name.removeprefix("_orig_mod."): weight for name, weight in weights.items()})
    export(model, arguments.output)
    check(model, arguments.output)


if __name__ == "__main__":
    main()
