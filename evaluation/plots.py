"""Plots of the results: error rate over noise, confusions, word timestamp errors, reliability of confidences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gorggle.results import Modality
from gorggle_evaluation.conditions import AUDIO_MODALITIES, MODALITY_NAMES
from gorggle_evaluation.confusions import VisemeConfusions
from gorggle_evaluation.metrics import TIGHT_TOLERANCE_S
from gorggle_evaluation.noise import NoiseKind
from gorggle_evaluation.results import ConditionResult
from gorggle_evaluation.visemes import NO_PHONEME, VISEMES

# Wong's palette, distinguishable with any colour vision (Nature Methods 8, 2011); markers differ for greyscale.
COLOURS: dict[Modality, str] = {"av": "#0072B2", "video": "#009E73", "audio": "#D55E00"}
MARKERS: dict[Modality, str] = {"av": "o", "video": "s", "audio": "^"}
PANEL_WIDTH_INCHES, RESOLUTION_DPI = 4.6, 130
MAX_WORD_PAIRS_SHOWN = 20
HISTOGRAM_MS, BIN_MS = 200, 10


def write_plots(results: Sequence[ConditionResult], folder: Path) -> list[Path]:
    """Draw the plots that have data as PNG files and return their paths."""
    clean = [result for result in results if result.condition.noise.kind is None]
    kinds = [kind for kind in NoiseKind if any(r.condition.noise.kind is kind for r in results)]
    figures = {
        "error_rate_over_noise.png": _plot_error_rates(results, kinds) if kinds else None,
        "confusions.png": _plot_confusions([r for r in clean if r.confusions.words]),
        "word_times.png": _plot_word_times([r for r in clean if r.time_error is not None]),
        "confidence.png": _plot_confidence([r for r in clean if r.confidence_error is not None]),
    }
    written = []
    for name, figure in figures.items():
        (folder / name).unlink(missing_ok=True)  # of an earlier run
        if figure is not None:
            figure.savefig(folder / name, dpi=RESOLUTION_DPI)
            written.append(folder / name)
    return written


def _create_panels(
    count: int, height_inches: float = 3.8, width_inches: float = PANEL_WIDTH_INCHES
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width_inches * count, height_inches), layout="constrained")
    axes: Any = figure.subplots(1, count, sharey=False, squeeze=False)
    return figure, list(axes[0])


# ---------------------------------------------------------------------------------------------------------- error rate


def _plot_error_rates(results: Sequence[ConditionResult], kinds: Sequence[NoiseKind]) -> Figure:
    figure, panels = _create_panels(len(kinds))
    highest = 100 * max((r.error_rate.interval or (0, r.error_rate.rate))[1] for r in results)
    for kind, axes in zip(kinds, panels, strict=True):
        for modality in MODALITY_NAMES:
            _plot_curve(axes, [r for r in results if r.condition.modality == modality], modality, kind)
        axes.set(
            title=kind.value,
            xlabel="signal-to-noise ratio, dB",
            ylim=(0, 1.05 * max(highest, 5.0)),
            axisbelow=True,
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("word error rate, %")
    panels[-1].legend(frameon=False)
    return figure


def _plot_curve(axes: Axes, results: Sequence[ConditionResult], modality: Modality, kind: NoiseKind) -> None:
    """Plot a modality's error rate over the signal-to-noise ratio, with clean audio at the right."""
    noisy = sorted((r for r in results if r.condition.noise.kind is kind), key=_snr_db)
    clean = [r for r in results if r.condition.noise.kind is None]
    snrs = [_snr_db(result) for result in noisy]
    positions = [*snrs, max(snrs, default=0.0) + 6]
    points = [
        (x, r.error_rate.rate, r.error_rate.interval)
        for x, r in zip(positions, [*noisy, *clean], strict=False)
    ]
    draw_error_rates(axes, modality, points)
    if modality in AUDIO_MODALITIES and points:
        axes.set_xticks(positions[: len(points)], [*(f"{snr:g}" for snr in snrs), "clean"][: len(points)])


def draw_error_rates(
    axes: Axes, modality: Modality, points: Sequence[tuple[float, float, Sequence[float] | None]]
) -> None:
    """Draw error rates in per cent: a curve with error bars, or a horizontal line for video only.

    Args:
        axes: axes to draw on.
        modality: sets colour, marker and label.
        points: x, error rate and its interval, sorted by x.
    """
    style: dict[str, Any] = {"color": COLOURS[modality], "label": MODALITY_NAMES[modality]}
    if not points:
        return
    x, rates, intervals = zip(*points, strict=True)
    if modality not in AUDIO_MODALITIES:
        axes.axhline(100 * rates[-1], linestyle="--", **style)
        return
    bounds = [interval or (rate, rate) for rate, interval in zip(rates, intervals, strict=True)]
    spread = [
        [max(0, 100 * abs(rate - bound[end])) for rate, bound in zip(rates, bounds, strict=True)]
        for end in (0, 1)
    ]
    axes.errorbar(
        x, [100 * rate for rate in rates], yerr=spread, marker=MARKERS[modality], capsize=3, **style
    )


def _snr_db(result: ConditionResult) -> float:
    return float(result.condition.noise.snr_db or 0.0)


# ---------------------------------------------------------------------------------------------------------- confusions


def _plot_confusions(results: Sequence[ConditionResult]) -> Figure | None:
    """Plot viseme confusions if a lexicon was given, otherwise word confusions; one panel per modality with errors."""
    if not results:
        return None
    with_visemes = [
        (r, r.confusions.visemes) for r in results if r.confusions.visemes and r.confusions.visemes.counts
    ]
    if not with_visemes:
        rows = min(MAX_WORD_PAIRS_SHOWN, max(len(result.confusions.words) for result in results))
        figure, panels = _create_panels(len(results), 1.6 + 0.24 * rows)
        for result, axes in zip(results, panels, strict=True):
            _plot_word_bars(axes, result, rows)
        return figure
    figure, panels = _create_panels(len(with_visemes), 6.4, 6.6)
    for (result, visemes), axes in zip(with_visemes, panels, strict=True):
        _plot_viseme_matrix(axes, visemes, MODALITY_NAMES[result.condition.modality])
    return figure


def _plot_word_bars(axes: Axes, result: ConditionResult, rows: int) -> None:
    shown = result.confusions.words[:rows]
    rows_shown = range(len(shown))
    colour = COLOURS[result.condition.modality]
    axes.barh(rows_shown, [count for _, _, count in shown], color=colour)
    axes.set_yticks(rows_shown, [f"{reference} → {hypothesis}" for reference, hypothesis, _ in shown])
    axes.set(
        title=f"{MODALITY_NAMES[result.condition.modality]}: reference → hypothesis",
        xlabel="times",
        ylim=(rows - 0.5, -0.5),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plot_viseme_matrix(axes: Axes, visemes: VisemeConfusions, title: str) -> None:
    """Draw the percentage of each reference viseme that was recognized as another; correct ones are left blank."""
    names = [*VISEMES, NO_PHONEME]
    shares = np.full((len(names) - 1, len(names)), np.nan)
    for (reference, hypothesis), count in visemes.counts.items():
        if reference not in (NO_PHONEME, hypothesis):
            share = 100 * count / visemes.reference_counts[reference]
            shares[names.index(reference), names.index(hypothesis)] = share
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=max(1.0, float(np.nanmax(shares, initial=0.0))))
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.05:
            shade = "white" if share > 0.6 * image.get_clim()[1] else "black"
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set_xticks(range(len(names)), [*VISEMES, "nothing"], rotation=60, ha="right", fontsize=8)
    axes.set_yticks(
        range(len(names) - 1),
        [f"{name} ({visemes.reference_counts.get(name, 0)})" for name in VISEMES],
        fontsize=8,
    )
    alike = f"{visemes.same_viseme} of {visemes.phoneme_substitutions} substituted phonemes share a viseme"
    axes.set(
        title=f"{title}: per cent recognized as another viseme\n{alike}",
        xlabel="hypothesis",
        ylabel="reference (count)",
    )


# ---------------------------------------------------------------------------------------------------------- word times


def _plot_word_times(results: Sequence[ConditionResult]) -> Figure | None:
    """Plot histograms of start and end offsets; the outermost bins include larger offsets."""
    if not results:
        return None
    figure, panels = _create_panels(len(results), 3.4)
    bins = np.arange(-HISTOGRAM_MS, HISTOGRAM_MS + 2 * BIN_MS, BIN_MS) - BIN_MS / 2
    for result, axes in zip(results, panels, strict=True):
        offsets_ms = np.clip(1000 * result.time_offsets_s, bins[0], bins[-1])
        for column, (name, style) in enumerate((("start", "-"), ("end", "--"))):
            counts, _ = np.histogram(offsets_ms[:, column], bins)
            axes.stairs(
                100 * counts / len(offsets_ms),
                bins,
                color=COLOURS[result.condition.modality],
                linestyle=style,
                label=name,
            )
        for limit_ms in (-1000 * TIGHT_TOLERANCE_S, 1000 * TIGHT_TOLERANCE_S):
            axes.axvline(limit_ms, color="0.6", linewidth=0.8)
        axes.set(
            title=f"{MODALITY_NAMES[result.condition.modality]} ({len(offsets_ms)} words)",
            xlabel="too early (−) or too late (+), ms",
        )
        axes.legend(frameon=False)
    panels[0].set_ylabel("words, %")
    return figure


# ---------------------------------------------------------------------------------------------------------- confidence


def _plot_confidence(results: Sequence[ConditionResult]) -> Figure | None:
    """Draw reliability diagrams: the share of correct words over their confidence."""
    if not results:
        return None
    figure, panels = _create_panels(len(results))
    for result, axes in zip(results, panels, strict=True):
        error, modality = result.confidence_error, result.condition.modality
        assert error is not None
        x, y, words = zip(
            *((100 * one.mean_confidence, 100 * one.share_correct, one.words) for one in error.bins),
            strict=True,
        )
        axes.plot([0, 100], [0, 100], color="0.6", linewidth=0.8)
        axes.plot(x, y, color=COLOURS[modality])
        # A point's area is its number of words.
        areas = [10 + 190 * count / max(words) for count in words]
        axes.scatter(x, y, s=areas, color=COLOURS[modality], alpha=0.6)
        axes.set(
            title=f"{MODALITY_NAMES[modality]}: error {100 * error.expected_calibration_error:.1f} % ({error.words} words)",
            xlabel="confidence, %",
            xlim=(0, 104),
            ylim=(0, 104),
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("correct words, %")
    return figure
