"""Text tables of the results for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gorggle_evaluation.metrics import ErrorRate
from gorggle_evaluation.results import ConditionResult

MAX_FAILURES_SHOWN = 20


def format_tables(results: Sequence[ConditionResult]) -> str:
    """Return all tables that have data, separated by blank lines."""
    parts = [
        _format_error_rates(results),
        _format_groups(results),
        _format_word_times(results),
        _format_attribution(results),
        _format_failures(results),
        _format_warnings(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_percent(share: float) -> str:
    """Return for example "3.2 %"."""
    return f"{100 * share:.1f} %"


def _format_error_rates(results: Sequence[ConditionResult]) -> str:
    rows = [
        ["word error rate", "", "95 %", "words", "subst.", "ins.", "del.", "clips", "failed", "x real time"]
    ]
    for result in results:
        factor = result.real_time_factor
        rows.append(
            [
                result.condition.name,
                *_rate_cells(result.error_rate),
                str(result.error_rate.clips),
                str(len(result.failures)),
                "–" if factor is None else f"{factor:.2f}",
            ]
        )
    return _align_columns(rows)


def _format_groups(results: Sequence[ConditionResult]) -> str:
    rows = [["by group", "", "95 %", "words", "subst.", "ins.", "del.", "clips"]]
    for result in results:
        for name, rate in result.groups.items():
            rows.append([f"{result.condition.name}: {name}", *_rate_cells(rate), str(rate.clips)])
    return _align_columns(rows) if len(rows) > 1 else ""


def _rate_cells(rate: ErrorRate) -> list[str]:
    interval = "–" if rate.interval is None else " to ".join(f"{100 * end:.1f}" for end in rate.interval)
    counts = (rate.words, rate.substitutions, rate.insertions, rate.deletions)
    return [format_percent(rate.rate), interval, *map(str, counts)]


def _format_word_times(results: Sequence[ConditionResult]) -> str:
    rows = [
        [
            "word timestamp errors",
            "start, median",
            "mean",
            "end, median",
            "mean",
            "≤ 100 ms",
            "≤ 120 ms",
            "words",
        ]
    ]
    for result in results:
        times = result.time_error
        if times is None:
            continue
        in_ms = (times.median_start_ms, times.mean_start_ms, times.median_end_ms, times.mean_end_ms)
        shares = (times.words_within_100_ms, times.words_within_120_ms)
        rows.append(
            [
                result.condition.name,
                *(f"{value:.0f} ms" for value in in_ms),
                *map(format_percent, shares),
                str(times.words),
            ]
        )
    return _align_columns(rows) if len(rows) > 1 else ""


def _format_attribution(results: Sequence[ConditionResult]) -> str:
    rows = [["speaker attribution", "of recognized", "of reference", "words", "clips"]]
    for result in results:
        found = result.attribution
        if found is not None:
            shares = (found.share_of_recognized, found.share_of_reference)
            rows.append(
                [result.condition.name, *map(format_percent, shares), str(found.words), str(found.clips)]
            )
    return _align_columns(rows) if len(rows) > 1 else ""


def _format_failures(results: Sequence[ConditionResult]) -> str:
    failures = [
        f"  {name} ({result.condition.name}): {error}"
        for result in results
        for name, error in result.failures.items()
    ]
    if not failures:
        return ""
    more = len(failures) - MAX_FAILURES_SHOWN
    rest = [f"  and {more} more"] if more > 0 else []
    return "\n".join(["failed (all their words count as deletions):", *failures[:MAX_FAILURES_SHOWN], *rest])


def _format_warnings(results: Sequence[ConditionResult]) -> str:
    warnings = [
        f"  {text} ({result.condition.name}, {clips} clip{'s' if clips > 1 else ''})"
        for result in results
        for text, clips in result.warnings.items()
    ]
    return "\n".join(["server warnings:", *warnings]) if warnings else ""


def _align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as columns of minimal width, the first left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
