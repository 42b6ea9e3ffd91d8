"""Plots error rates over noise from the results of ``python -m training evaluate --noise``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gorggle.results import Modality as ResultModality
from gorggle_evaluation.noise import NoiseKind
from gorggle_evaluation.plots import draw_error_rates
from gorggle_server.types import Modality
from training.sentences import Corpus

MODALITIES: dict[Modality, ResultModality] = {
    Modality.AUDIO_VISUAL: "av",
    Modality.VIDEO_ONLY: "video",
    Modality.AUDIO_ONLY: "audio",
}
CORPUS_NAMES = {Corpus.GRID: "GRID commands", Corpus.PHRASES: "phrases"}
CLEAN = "clean"
PANEL_WIDTH_INCHES, PANEL_HEIGHT_INCHES, RESOLUTION_DPI = 4.0, 3.4, 110


def plot_noise_curves(evaluation: Mapping[str, Any], path: Path) -> None:
    """Plot an evaluation into a PNG file: a row per corpus, a column per noise.

    Raises:
        ValueError: the evaluation has no noise conditions.
    """
    corpora = {corpus: list(results["conditions"].values()) for corpus, results in evaluation.items()}
    snrs = {
        (corpus, kind): _list_snrs(results, kind) for corpus, results in corpora.items() for kind in NoiseKind
    }
    kinds = [kind for kind in NoiseKind if any(snrs[corpus, kind] for corpus in corpora)]
    corpora = {
        corpus: results for corpus, results in corpora.items() if any(snrs[corpus, kind] for kind in kinds)
    }
    if not kinds:
        raise ValueError("the evaluation has no noise conditions: evaluate with --noise")
    size = (PANEL_WIDTH_INCHES * len(kinds), PANEL_HEIGHT_INCHES * len(corpora))
    figure = Figure(figsize=size, layout="constrained")
    panels: Any = figure.subplots(len(corpora), len(kinds), squeeze=False, sharey="row")
    for row, (corpus, results) in zip(panels, corpora.items(), strict=True):
        highest = max((result["words"]["interval"] or [0, result["words"]["rate"]])[1] for result in results)
        row[0].set_ylim(0, 105 * highest)  # the row shares its axis
        for axes, kind in zip(row, kinds, strict=True):
            if snrs[corpus, kind]:
                _plot_panel(axes, results, kind, snrs[corpus, kind])
                axes.set_title(f"{CORPUS_NAMES[Corpus(corpus)]}, {kind.value}")
            else:
                axes.set_visible(False)
        first = next(axes for axes in row if axes.get_visible())
        first.set_ylabel("word error rate, %")
        first.tick_params(labelleft=True)
    panels[0][-1].legend(frameon=False)
    figure.savefig(path, dpi=RESOLUTION_DPI)


def _plot_panel(axes: Axes, results: list[Mapping[str, Any]], kind: NoiseKind, snrs: list[float]) -> None:
    conditions = [*(f"{kind.value} at {snr:g} dB" for snr in snrs), CLEAN]
    for modality, name in MODALITIES.items():
        words = {r["condition"]: r["words"] for r in results if r["modality"] == modality.value}
        points = [
            (float(x), words[condition]["rate"], words[condition]["interval"])
            for x, condition in enumerate(conditions)
            if condition in words
        ]
        draw_error_rates(axes, name, points)
    axes.set_xticks(range(len(conditions)), [*(f"{snr:g}" for snr in snrs), CLEAN])
    axes.set_xlabel("signal-to-noise ratio, dB")
    axes.grid(alpha=0.3)


def _list_snrs(results: list[Mapping[str, Any]], kind: NoiseKind) -> list[float]:
    """Return the signal-to-noise ratios of a noise in dB, ascending."""
    prefix = f"{kind.value} at "
    return sorted(
        {
            float(result["condition"].removeprefix(prefix).removesuffix(" dB"))
            for result in results
            if result["condition"].startswith(prefix)
        }
    )
