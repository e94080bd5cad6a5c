"""Draws the charts from what was measured; run with the packages of requirements-bench.txt, which only this needs."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
# Chart: its title, and what its axes are.
CHARTS = {
    "throughput": ("Deliveries committed, by connections", "connections", "deliveries per second"),
    "latency": ("Latency of a delivery, 64 connections", "percentile", "milliseconds"),
    "claims": ("Claim 100 due generations", "rows in the table", "milliseconds"),
}


def main() -> None:
    """One PNG for each chart of which anything was measured."""
    series: dict[str, list[list[float]]] = json.loads((HERE / "results.json").read_text())["series"]
    for name, (title, across, up) in CHARTS.items():
        lines = {key.partition("/")[2]: points for key, points in series.items() if key.startswith(f"{name}/")}
        if lines:
            _draw(name, lines, title=title, across=across, up=up)


def _draw(name: str, lines: dict[str, list[list[float]]], *, title: str, across: str, up: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for label, points in lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label)
    highest = max(y for points in lines.values() for _, y in points)
    axes.set(title=title, xlabel=across, ylabel=up, ylim=(0, highest * 1.1))
    axes.set_xscale("linear" if name == "latency" else "log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / f"{name}.png")


if __name__ == "__main__":
    main()
