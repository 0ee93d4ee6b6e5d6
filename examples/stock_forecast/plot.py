#!/usr/bin/env python3
"""Draws forecasts against prices: plot.py OUT.png NAME=FORECASTS.csv [NAME=FORECASTS.csv ...]"""

import csv
import sys
from datetime import date

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LAST = 60  # days in the close-up


def main() -> None:
    out, *files = sys.argv[1:]
    figure, (whole, close) = plt.subplots(2, 1, figsize=(11, 8), constrained_layout=True)
    for i, (name, path) in enumerate(argument.split("=", 1) for argument in files):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        days = [date.fromisoformat(row["date"]) for row in rows]
        price = [float(row["close"]) for row in rows]
        forecast = [float(row["forecast"]) for row in rows]
        for axes, first in ((whole, 0), (close, -LAST)):
            if i == 0:
                axes.plot(days[first:], price[first:], color="black", linewidth=1, label="closing price")
            axes.plot(days[first:], forecast[first:], color=f"C{i}", linewidth=1, label=f"forecast of {name}")
    whole.set_title("S&P 500, the last fifth of the days: closing price and the forecast made the day before")
    close.set_title(f"the last {LAST} days")
    for axes in (whole, close):
        axes.set_ylabel("dollars")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
