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
        _format_confidence(results),
        _format_attribution(results),
        _format_failures(results),
        _format_warnings(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_percent(share: float) -> str:
    """Return for example "3.2 %"."""
    return f"{100 * share:.1f} %"


_ERROR_COLUMNS = ("95 %", "words", "subst.", "ins.", "del.", "clips")


def _format_error_rates(results: Sequence[ConditionResult]) -> str:
    rows = []
    for result in results:
        factor = result.real_time_factor
        speed = "–" if factor is None else f"{factor:.2f}"
        cells = _rate_cells(result.error_rate)
        rows.append([result.condition.name, *cells, str(len(result.failures)), speed])
    return _format_table(["word error rate", "", *_ERROR_COLUMNS, "failed", "x real time"], rows)


def _format_groups(results: Sequence[ConditionResult]) -> str:
    rows = [
        [f"{result.condition.name}: {name}", *_rate_cells(rate)]
        for result in results
        for name, rate in result.groups.items()
    ]
    return _format_table(["by group", "", *_ERROR_COLUMNS], rows)


def _rate_cells(rate: ErrorRate) -> list[str]:
    interval = "–" if rate.interval is None else " to ".join(f"{100 * end:.1f}" for end in rate.interval)
    counts = (rate.words, rate.substitutions, rate.insertions, rate.deletions, rate.clips)
    return [format_percent(rate.rate), interval, *map(str, counts)]


def _format_word_times(results: Sequence[ConditionResult]) -> str:
    rows = []
    for result in results:
        if (times := result.time_error) is not None:
            in_ms = (times.median_start_ms, times.mean_start_ms, times.median_end_ms, times.mean_end_ms)
            shares = (times.words_within_100_ms, times.words_within_120_ms)
            cells = (*(f"{value:.0f} ms" for value in in_ms), *map(format_percent, shares))
            rows.append([result.condition.name, *cells, str(times.words)])
    header = ["word timestamp errors", "start, median", "mean", "end, median", "mean"]
    return _format_table([*header, "≤ 100 ms", "≤ 120 ms", "words"], rows)


def _format_confidence(results: Sequence[ConditionResult]) -> str:
    rows = []
    for result in results:
        if (found := result.confidence_error) is not None:
            shares = (found.expected_calibration_error, found.mean_confidence, found.share_correct)
            rows.append([result.condition.name, *map(format_percent, shares), str(found.words)])
    return _format_table(["word confidence", "calibration error", "mean", "correct", "words"], rows)


def _format_attribution(results: Sequence[ConditionResult]) -> str:
    rows = []
    for result in results:
        if (found := result.attribution) is not None:
            shares = map(format_percent, (found.share_of_recognized, found.share_of_reference))
            rows.append([result.condition.name, *shares, str(found.words), str(found.clips)])
    return _format_table(["speaker attribution", "of recognized", "of reference", "words", "clips"], rows)


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


def _format_table(header: list[str], rows: list[list[str]]) -> str:
    """Format columns of minimal width, the first left-aligned, the others right-aligned; "" without rows."""
    if not rows:
        return ""
    table = [header, *rows]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    lines = (
        "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]).rstrip() for name, *cells in table
    )
    return "\n".join(lines)
