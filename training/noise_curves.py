"""What ``python -m training evaluate --noise`` measured, drawn: word error rates over noise, by kind and by corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gorggle_evaluation.noise import NoiseKind
from gorggle_server.types import Modality
from training.sentences import Corpus

# Wong's palette, distinguishable with any colour vision (Nature Methods 8, 2011); markers tell them apart in grey.
COLOURS = {Modality.AUDIO_VISUAL: "#0072B2", Modality.VIDEO_ONLY: "#009E73", Modality.AUDIO_ONLY: "#D55E00"}
MARKERS = {Modality.AUDIO_VISUAL: "o", Modality.VIDEO_ONLY: "s", Modality.AUDIO_ONLY: "^"}
NAMES = {
    Modality.AUDIO_VISUAL: "lips and sound",
    Modality.VIDEO_ONLY: "lips alone",
    Modality.AUDIO_ONLY: "sound alone",
}
CORPUS_NAMES = {Corpus.GRID: "GRID commands", Corpus.PHRASES: "phrases"}
CLEAN = "clean"
PANEL_IN, RESOLUTION_DPI = 4.0, 110


def plot_noise_curves(evaluation: Mapping[str, Any], path: Path) -> None:
    """Draw an evaluation, as its JSON holds it, into a PNG file: a row for each corpus, a column for each noise."""
    conditions = {corpus: results["conditions"].values() for corpus, results in evaluation.items()}
    conditions = {corpus: found for corpus, found in conditions.items() if _measured_kinds(list(found))}
    kinds = [
        kind
        for kind in NoiseKind
        if any(kind in _measured_kinds(list(found)) for found in conditions.values())
    ]
    if not kinds:
        raise ValueError("nothing was measured in noise: evaluate with --noise")
    figure = Figure(figsize=(PANEL_IN * len(kinds), 3.4 * len(conditions)), layout="constrained")
    panels: Any = figure.subplots(len(conditions), len(kinds), squeeze=False, sharey="row")
    for row, (corpus, found) in zip(panels, conditions.items(), strict=True):
        highest = max(one["words"]["interval"][1] for one in found)
        row[0].set_ylim(0, 105 * highest)  # the row shares its axis
        for axes, kind in zip(row, kinds, strict=True):
            if _measured_snrs(list(found), kind):
                _plot_panel(axes, list(found), kind)
                axes.set_title(f"{CORPUS_NAMES[Corpus(corpus)]}, {kind.value}")
            else:
                axes.set_visible(False)
        first = next(axes for axes in row if axes.get_visible())
        first.set_ylabel("word error rate, %")
        first.tick_params(labelleft=True)
    panels[0][-1].legend(frameon=False)
    figure.savefig(path, dpi=RESOLUTION_DPI)


def _plot_panel(axes: Axes, found: Sequence[Mapping[str, Any]], kind: NoiseKind) -> None:
    snrs = _measured_snrs(found, kind)
    places = {f"{kind.value} at {snr:g} dB": float(place) for place, snr in enumerate(snrs)}
    places[CLEAN] = float(len(snrs))
    for modality in Modality:
        measured = [
            (places[one["condition"]], one["words"])
            for one in found
            if one["modality"] == modality.value and one["condition"] in places
        ]
        if modality is Modality.VIDEO_ONLY:
            for _, words in measured:
                axes.axhline(
                    100 * words["rate"], color=COLOURS[modality], linestyle="--", label=NAMES[modality]
                )
        elif measured:
            measured.sort(key=lambda one: one[0])
            rates = [100 * words["rate"] for _, words in measured]
            spread = [
                [
                    max(0.0, rate - 100 * words["interval"][0])
                    for rate, (_, words) in zip(rates, measured, strict=True)
                ],
                [
                    max(0.0, 100 * words["interval"][1] - rate)
                    for rate, (_, words) in zip(rates, measured, strict=True)
                ],
            ]
            axes.errorbar(
                [place for place, _ in measured],
                rates,
                yerr=spread,
                color=COLOURS[modality],
                marker=MARKERS[modality],
                capsize=3,
                label=NAMES[modality],
            )
    axes.set_xticks(range(len(snrs) + 1), [*(f"{snr:g}" for snr in snrs), CLEAN])
    axes.set_xlabel("signal-to-noise ratio, dB")
    axes.grid(alpha=0.3)


def _measured_kinds(found: Sequence[Mapping[str, Any]]) -> list[NoiseKind]:
    return [kind for kind in NoiseKind if _measured_snrs(found, kind)]


def _measured_snrs(found: Sequence[Mapping[str, Any]], kind: NoiseKind) -> list[float]:
    """The ratios that were measured with a kind of noise, in dB, the loudest noise first."""
    prefix, suffix = f"{kind.value} at ", " dB"
    return sorted(
        {
            float(one["condition"].removeprefix(prefix).removesuffix(suffix))
            for one in found
            if one["condition"].startswith(prefix)
        }
    )
