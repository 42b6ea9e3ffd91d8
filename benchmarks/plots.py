"""The plots of ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

MODELS = {"embedded": "embedded (gorggle-mini-1)", "base": "Base", "large": "Large"}

# Prefixes of the stages of a file, in order.
STAGES = (
    *("decoding", "face tracking", "face detection", "landmarks", "warp", "other"),
    *("front-end", "beam search", "word timestamps"),
)


def plot_engine(measured: dict[str, Any], path: Path) -> None:
    """Plot the speedups by stage and model."""
    compared = [row for row in measured["rows"] if row["ratio"] is not None]
    stages = list(dict.fromkeys(row["stage"] for row in compared))
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    models = [name for name in MODELS if any(row["model"] == name for row in compared)]
    for place, name in enumerate(models):
        ratio_of = {row["stage"]: row["ratio"] for row in compared if row["model"] == name}
        at = [number + (place - (len(models) - 1) / 2) * 0.27 for number in range(len(stages))]
        bars = axes.bar(at, [ratio_of.get(stage, 0) for stage in stages], 0.25, label=MODELS[name])
        axes.bar_label(bars, fmt=lambda ratio: f"{ratio:.1f}" if ratio else "", fontsize=8)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(stages)), [stage.replace(", ", ",\n") for stage in stages], fontsize=8)
    axes.set_ylabel("speedup")
    axes.set_title(
        "Speedup over fairseq's modules (front-end: plain torch; utterances: sequential)", fontsize=10
    )
    _save_figure(figure, axes, path)


def plot_end_to_end(measured: dict[str, Any], path: Path) -> None:
    """Plot the time of a file's stages, ours and the reference's."""
    rows = measured["rows"]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.9 * len(rows)), layout="constrained")
    bars = [
        (f"{MODELS[row['model']]}, {way}", {stage: row[key][stage] for stage in sort_stages(row[key])})
        for row in rows
        for way, key in (("reference", "reference"), ("Gorggle", "ours"))
    ]
    stages = sort_stages({stage: 0.0 for _, seconds in bars for stage in seconds})
    colours = dict(zip(stages, plt.get_cmap("tab10").colors, strict=False))
    ends = [0.0] * len(bars)
    for stage in stages:
        width = [seconds.get(stage, 0.0) for _, seconds in bars]
        axes.barh([name for name, _ in bars], width, left=ends, label=stage, color=colours.get(stage))
        ends = [end + seconds for end, seconds in zip(ends, width, strict=True)]
    for number, end in enumerate(ends):
        axes.text(end, number, f" {end:.1f} s", va="center", fontsize=8)
    axes.axvline(measured["clip_s"], color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"seconds for a clip of {measured['clip_s']:g} s (dotted: real time)")
    axes.invert_yaxis()
    _save_figure(figure, axes, path, legend_beside=True)


def plot_stream_scaling(measured: dict[str, Any], path: Path) -> None:
    """Plot the time of n streams, compared with n times one stream."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind in measured["kinds"]:
        counts = [step["streams"] for step in kind["steps"]]
        took = [step["wall_s"] for step in kind["steps"]]
        (line,) = axes.plot(counts, took, marker="o", label=f"the demo clip as {kind['kind']}")
        axes.plot(
            counts, [took[0] / counts[0] * n for n in counts], linestyle=":", color=line.get_color(),
            label="n times one stream",
        )  # fmt: skip
    axes.set_xlabel("concurrent streams")
    axes.set_ylabel("seconds until all are transcribed")
    _save_figure(figure, axes, path)


def sort_stages(seconds: dict[str, float]) -> list[str]:
    """Return stages in processing order."""
    return [stage for name in STAGES for stage in seconds if stage.startswith(name)]


def _save_figure(figure: Any, axes: Any, path: Path, *, legend_beside: bool = False) -> None:
    """Save the figure; the legend is inside, or to the right if bars fill the inside."""
    if legend_beside:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.12, 0.5))
    else:
        axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


PLOTS: dict[str, tuple[str, Callable[[dict[str, Any], Path], None]]] = {
    "engine": ("engine-speed.png", plot_engine),
    "whole": ("whole-file.png", plot_end_to_end),
    "growth": ("growth.png", plot_stream_scaling),
}
