"""Plots error rates over noise from the results of ``python -m training evaluate --noise``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gorggle_evaluation.conditions import MODALITY_NAMES, NoiseCondition
from gorggle_evaluation.noise import NoiseKind
from gorggle_evaluation.plots import draw_error_rates
from gorggle_training.evaluate import SNRS_DB

CORPUS_NAMES = {"grid": "GRID commands", "phrases": "phrases"}
PANEL_WIDTH_INCHES, PANEL_HEIGHT_INCHES, RESOLUTION_DPI = 4.0, 3.4, 110


def plot_noise_curves(evaluation: Mapping[str, Any], path: Path) -> None:
    """Plot an evaluation into a PNG file: a row per corpus, a column per noise.

    Raises:
        ValueError: the evaluation has no noise conditions.
    """
    corpora = {corpus: list(results["conditions"].values()) for corpus, results in evaluation.items()}
    names = {corpus: {result["condition"] for result in results} for corpus, results in corpora.items()}
    snrs = {
        (corpus, kind): [snr for snr in sorted(SNRS_DB) if NoiseCondition(kind, snr).name in names[corpus]]
        for corpus in corpora
        for kind in NoiseKind
    }
    kinds = [kind for kind in NoiseKind if any(snrs[corpus, kind] for corpus in corpora)]
    if not kinds:
        raise ValueError("the evaluation has no noise conditions: evaluate with --noise")
    corpora = {
        corpus: results for corpus, results in corpora.items() if any(snrs[corpus, kind] for kind in kinds)
    }
    size = (PANEL_WIDTH_INCHES * len(kinds), PANEL_HEIGHT_INCHES * len(corpora))
    figure = Figure(figsize=size, layout="constrained")
    panels: Any = figure.subplots(len(corpora), len(kinds), squeeze=False, sharey="row")
    for row, (corpus, results) in zip(panels, corpora.items(), strict=True):
        highest = max((result["words"]["interval"] or [0, result["words"]["rate"]])[1] for result in results)
        row[0].set_ylim(0, 105 * highest)  # the row shares its axis
        for axes, kind in zip(row, kinds, strict=True):
            if snrs[corpus, kind]:
                _plot_panel(axes, results, kind, snrs[corpus, kind])
                axes.set_title(f"{CORPUS_NAMES[corpus]}, {kind.value}")
            else:
                axes.set_visible(False)
        first = next(axes for axes in row if axes.get_visible())
        first.set_ylabel("word error rate, %")
        first.tick_params(labelleft=True)
    panels[0][-1].legend(frameon=False)
    figure.savefig(path, dpi=RESOLUTION_DPI)


def _plot_panel(axes: Axes, results: list[Mapping[str, Any]], kind: NoiseKind, snrs: list[float]) -> None:
    conditions = [*(NoiseCondition(kind, snr) for snr in snrs), NoiseCondition()]
    for modality, name in MODALITY_NAMES.items():
        words = {r["condition"]: r["words"] for r in results if r["modality"] == name}
        points = [
            (float(x), words[condition.name]["rate"], words[condition.name]["interval"])
            for x, condition in enumerate(conditions)
            if condition.name in words
        ]
        draw_error_rates(axes, modality, points)
    axes.set_xticks(range(len(conditions)), [*(f"{snr:g}" for snr in snrs), "clean"])
    axes.set_xlabel("signal-to-noise ratio, dB")
    axes.grid(alpha=0.3)
