"""Learning curves: metrics of a training run, logged as JSON lines and plotted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


class MetricsLog:
    """The metrics of a run as JSON lines: ``kind`` is "loss" or "error"; all have ``minutes``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, kind: str, minutes: float, values: dict[str, float]) -> None:
        """Append metrics."""
        rounded = {name: round(value, 5) for name, value in values.items()}
        entry = {"kind": kind, "minutes": round(minutes, 3), **rounded}
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def entries(self, kind: str) -> list[dict[str, float]]:
        """Return all entries of a kind, in order."""
        if not self._path.exists():
            return []
        entries = map(json.loads, self._path.read_text().splitlines())
        return [entry for entry in entries if entry.pop("kind") == kind]


def plot_learning_curves(log: MetricsLog, path: Path) -> None:
    """Plot losses and validation errors over training time."""
    figure, (losses, errors) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    _plot_lines(losses, log.entries("loss"))
    losses.set(title="Training loss", xlabel="minutes", ylabel="loss", yscale="log")
    _plot_lines(errors, log.entries("error"))
    errors.set(
        title="Word error rate, validation", xlabel="minutes", ylabel="word error rate", ylim=(0, 1.05)
    )
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_lines(axes: Axes, entries: Sequence[dict[str, float]]) -> None:
    names = {name: None for entry in entries for name in entry if name != "minutes"}
    for name in names:
        points = [(entry["minutes"], entry[name]) for entry in entries if name in entry]
        axes.plot(*zip(*points, strict=True), label=name)
