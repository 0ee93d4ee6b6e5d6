#!/usr/bin/env python3
"""Trains two attention models that forecast tomorrow's closing price from the last five, and exports them to ONNX.

Prices go in and a price comes out, both in dollars: scaling is part of the model. The textbook version of this
example scales the whole series to [0, 1] first, and makes one of two mistakes:

  * A scaler fitted on all years leaks the future: the training years are scaled by the maximum of the test years.
  * A scaler fitted on the training years leaves the test years out of its range: this index ends at 2,900 dollars,
    the training years at no more than 2,075, so the network is asked about inputs up to 1.6 that it has never seen.

Here each window is scaled by its own minimum and maximum, which are known on the day of the forecast. So nothing
leaks, every year looks alike to the network, and whoever runs the model has no scaler to carry beside it.
"""

import argparse
import copy
import csv
import logging
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
DAYS = 5  # in a window
LARGEST_BATCH = 64
CENT = 0.01  # the least span of a window: a flat one must not divide by zero


def low_and_span(window: Tensor) -> tuple[Tensor, Tensor]:  # [batch, days] -> 2 x [batch, 1]
    low = window.amin(dim=1, keepdim=True)
    return low, (window.amax(dim=1, keepdim=True) - low).clamp(min=CENT)


class ScaledByWindow(nn.Module):
    """Scales each window to [0, 1] by its own minimum and maximum, and the forecast back: dollars in, dollars out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:  # [batch, days] -> [batch, 1]
        low, span = low_and_span(window)
        scaled = (window - low) / span
        return low + span * self.network(scaled.unsqueeze(-1))


class AdditiveAttention(nn.Module):
    """Bahdanau's attention: weights = softmax over days of v . tanh(W h + b); returns the weighted sum of h."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:  # [batch, days, size] -> [batch, size]
        weights = torch.softmax(self.score(torch.tanh(self.project(states))), dim=1)
        return (weights * states).sum(dim=1)


class LstmAttention(nn.Module):
    def __init__(self, size: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, size, layers, batch_first=True)
        self.attention = AdditiveAttention(size)
        self.dense = nn.Linear(size, 1)

    def forward(self, scaled: Tensor) -> Tensor:  # [batch, days, 1] -> [batch, 1]
        states, _ = self.lstm(scaled)
        return self.dense(self.attention(states))


class SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:  # [batch, days, size], in and out
        batch, days, size = x.shape
        q, k, v = (
            part.view(batch, days, self.heads, size // self.heads).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.output(mixed.transpose(1, 2).reshape(batch, days, size))


class EncoderLayer(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention = SelfAttention(size, heads)
        self.feed_forward_norm = nn.LayerNorm(size)
        self.feed_forward = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, x: Tensor) -> Tensor:  # [batch, days, size], in and out
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    def __init__(self, size: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(1, size)
        self.register_buffer("positions", sinusoids(DAYS, size))
        self.encoder = nn.Sequential(*(EncoderLayer(size, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(size)
        self.dense = nn.Linear(size, 1)

    def forward(self, scaled: Tensor) -> Tensor:  # [batch, days, 1] -> [batch, 1]
        encoded = self.encoder(self.embed(scaled) + self.positions)
        return self.dense(self.norm(encoded[:, -1]))


def sinusoids(days: int, size: int) -> Tensor:  # [days, size]
    frequency = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000.0) / size))
    angle = torch.arange(days).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


MODELS: dict[str, type[nn.Module]] = {"lstm_attention": LstmAttention, "transformer": Transformer}


def read_windows(path: Path) -> tuple[Tensor, Tensor]:
    """Every five days in a row, [samples, 5], and the price of the day after, [samples, 1]."""
    with path.open(newline="") as file:
        close = torch.tensor([float(row["close"]) for row in csv.DictReader(file)])
    return close[:-1].unfold(0, DAYS, 1).contiguous(), close[DAYS:].unsqueeze(1)


def percent_loss(forecast: Tensor, price: Tensor) -> Tensor:
    """In percent of the price, so that a year at 700 dollars counts as much as one at 2,900."""
    return F.huber_loss(100 * forecast / price, torch.full_like(price, 100.0))


def train(name: str, window: Tensor, price: Tensor, epochs: int, seed: int) -> nn.Module:
    """Fits on the first nine tenths of what is given and keeps the epoch that is best on the last tenth."""
    torch.manual_seed(seed)
    model = ScaledByWindow(MODELS[name]())
    fit = len(window) * 9 // 10
    batches = math.ceil(fit / LARGEST_BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=epochs * batches)
    best, best_loss, start = copy.deepcopy(model.state_dict()), math.inf, time.monotonic()
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(fit).split(LARGEST_BATCH):
            optimizer.zero_grad()
            percent_loss(model(window[batch]), price[batch]).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            loss = percent_loss(model(window[fit:]), price[fit:]).item()
        if loss < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), loss
        if sys.stderr.isatty():
            print(f"\r{name}: epoch {epoch} of {epochs}, best loss {best_loss:.4f}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{name}: {epochs} epochs in {time.monotonic() - start:.0f} s, validation loss {best_loss:.4f}")
    model.load_state_dict(best)
    return model.eval()


def fit_line(window: Tensor, price: Tensor) -> nn.Module:
    """Least squares on the five scaled prices: what six numbers make of the same input."""
    low, span = low_and_span(window)
    scaled = torch.cat([(window - low) / span, torch.ones_like(low)], dim=1)
    *weights, bias = torch.linalg.lstsq(scaled.double(), ((price - low) / span).double()).solution.flatten().tolist()
    print("linear fit: weights " + " ".join(f"{w:.6f}" for w in weights) + f", bias {bias:.6f}")
    line = nn.Sequential(nn.Flatten(), nn.Linear(DAYS, 1))
    line[1].weight.data, line[1].bias.data = torch.tensor([weights]), torch.tensor([bias])
    return ScaledByWindow(line)


def export(model: nn.Module, window: Tensor, path: Path) -> None:
    """Writes the model for batches of 1 to 64, and checks the file with onnxruntime."""
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with warnings.catch_warnings(action="ignore"):  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            model, (window[:2],), dynamo=True, dynamic_shapes={"window": {0: batch}},
            input_names=["window"], output_names=["forecast"], verbose=False,
        )  # fmt: skip
    for node in program.model.graph.all_nodes():  # stack traces hold the paths of this machine
        node.metadata_props.clear()
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path)
    for samples in (window[:1], window[:LARGEST_BATCH]):
        (forecast,) = session.run(None, {"window": samples.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(forecast, model(samples).numpy(), rtol=1e-6)


def write_expected(models: dict[str, nn.Module], window: Tensor, path: Path) -> None:
    """64 windows, a flat one at the end, and the forecasts in double precision, as a test's yardstick."""
    spread = window[torch.linspace(0, len(window) - 1, LARGEST_BATCH).long()]
    spread[-1] = spread[-1, -1]
    with torch.no_grad():
        forecasts = {name: copy.deepcopy(model).double()(spread.double()).numpy() for name, model in models.items()}
    np.savez(path, window=spread.numpy(), **forecasts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "sp500.csv", help="columns date and close")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the ONNX files")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order on every run, and no slower at this size
    torch.use_deterministic_algorithms(True)

    window, price = read_windows(arguments.data)
    first_test = (len(window) + DAYS) * 4 // 5 - DAYS  # the first window whose forecast is in the last fifth of days
    past, future = slice(first_test), slice(first_test, None)
    models = {name: train(name, window[past], price[past], arguments.epochs, arguments.seed) for name in MODELS}
    for name, model in models.items():
        export(model, window[future], arguments.output / f"{name}.onnx")
    write_expected(models, window[future], arguments.output / "expected.npz")

    line = fit_line(window[past], price[past])
    print(f"\n{len(price) - first_test} test days, errors in dollars      MAE     RMSE")
    with torch.no_grad():
        forecasts = {name: model(window[future]) for name, model in models.items()}
        forecasts |= {"tomorrow is like today": window[future, -1:], "linear fit": line(window[future])}
    for name, forecast in forecasts.items():
        error = forecast - price[future]
        print(f"{name:36}{error.abs().mean():8.3f} {error.square().mean().sqrt():8.3f}")


if __name__ == "__main__":
    main()
