"""Learning curves: what a training run noted as it went, kept as JSON lines and drawn as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


class MetricsLog:
    """The notes of a run, one JSON object a line: ``kind`` is "loss" or "error"; both have ``minutes``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, kind: str, minutes: float, values: dict[str, float]) -> None:
        """Note values at a moment of the run."""
        note = {"kind": kind, "minutes": round(minutes, 3)} | {
            name: round(value, 5) for name, value in values.items()
        }
        with self._path.open("a") as journal:
            journal.write(json.dumps(note) + "\n")

    def entries(self, kind: str) -> list[dict[str, float]]:
        """All notes of a kind, in order."""
        if not self._path.exists():
            return []
        notes = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [
            {name: value for name, value in note.items() if name != "kind"}
            for note in notes
            if note["kind"] == kind
        ]


def plot_learning_curves(log: MetricsLog, path: Path) -> None:
    """Losses and validation errors over the minutes of the run."""
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


def _plot_lines(axes: Axes, notes: Sequence[dict[str, float]]) -> None:
    names = {name: None for note in notes for name in note if name != "minutes"}
    for name in names:
        points = [(note["minutes"], note[name]) for note in notes if name in note]
        axes.plot(*zip(*points, strict=True), label=name)
