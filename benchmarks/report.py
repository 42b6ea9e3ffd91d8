"""Writes the tables and plots of ``docs/performance.md`` from ``benchmarks/results``.

.venv/bin/python -m benchmarks.report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.command import RESULTS, ROOT
from benchmarks.roofline import roofline_s, vision_roofline_ms

DOCS = ROOT / "docs"
MODELS = plots.MODELS


def write_report(results: Path, docs: Path) -> None:
    """Update the page and its plots; sections without results are unchanged."""
    page = docs / "performance.md"
    text = page.read_text()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    for name, table in TABLES.items():
        if name in found:
            text = replace_section(text, name, table(found))
    page.write_text(text)
    for name, (file, draw) in plots.PLOTS.items():
        if name in found:
            draw(found[name], docs / "images" / file)
    print(f"written: {page} and its plots")


def replace_section(text: str, name: str, lines: Sequence[str]) -> str:
    """Replace the section between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page lacks the markers {begin} and {end}: add them where the section belongs")
    return f"{before}{begin}\n{chr(10).join(lines)}\n{end}{after}"


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a table; columns whose name begins with ">" are right-aligned."""
    lines = [[name.lstrip(">") for name in columns], ["---:" if ">" in name else "---" for name in columns]]
    return [f"| {' | '.join(cells)} |" for cells in (*lines, *rows)]


def format_machine(machine: dict[str, Any]) -> str:
    """Describe the machine in one sentence."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s), torch {machine['torch']}; "
        f"{machine['clock']}; peak matrix product {machine['gflops']:.0f} GFLOP/s, memory bandwidth "
        f"{machine['gigabytes_per_s']:.0f} GB/s; load average at the start {machine['load']:.1f}."
    )


def format_engine(found: dict[str, Any]) -> list[str]:
    """Format the engine's stages compared with fairseq's."""
    measured = found["engine"]
    machine = measured["machine"]
    conditions = (
        f"{format_machine(machine)} {machine['dtype']}, clip of {machine['clip_s']:g} s, hypotheses of "
        f"{machine['tokens']} tokens, minimum of {machine['repeats']} repetitions."
    )
    rows = []
    for row in add_combined_rows(measured["rows"]):
        floor = roofline_s(row, machine)
        cells = (
            MODELS[row["model"]],
            row["stage"],
            format_seconds(row["ours_s"]),
            format_seconds(row["theirs_s"]),
            format_ratio(row["ratio"]),
            row["baseline"],
            format_seconds(floor),
            "" if floor is None else f"{row['ours_s'] / floor:.1f}×",
            {True: "identical", False: "DIFFER", None: ""}[row.get("tokens_identical")],
        )
        rows.append(cells)
    columns = ("model", "stage", ">Gorggle", ">baseline", ">speedup", "baseline is", ">floor")
    table = format_table((*columns, ">multiple of floor", "tokens"), rows)
    return [conditions, "", *table, *(["", measured["note"]] if "note" in measured else [])]


def add_combined_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the sum of front-end and encoder added after each encoder: they always run together."""
    all_rows: list[dict[str, Any]] = []
    for row in rows:
        before = all_rows[-1] if all_rows else None
        all_rows.append(row)
        if row["stage"] == "encoder" and before is not None and before["stage"] == "front-end":
            if row["theirs_s"] is None or before["theirs_s"] is None:
                continue
            both = {key: before[key] + row[key] for key in ("ours_s", "theirs_s", "gflop")}
            stage = {"model": row["model"], "stage": "front-end and encoder", "baseline": "both"}
            all_rows.append({**stage, **both, "ratio": both["theirs_s"] / both["ours_s"]})
    return all_rows


def format_weights(name: str) -> Callable[[dict[str, Any]], list[str]]:
    """Return a formatter of the engine with other weight types compared with float32."""

    def table(found: dict[str, Any]) -> list[str]:
        rows = [
            (
                MODELS[row["model"]],
                row["stage"],
                format_seconds(row["theirs_s"]),
                format_seconds(row["ours_s"]),
                format_ratio(row["ratio"]),
                {True: "identical", False: "differ", None: ""}[row.get("tokens_identical")],
            )
            for row in found[name]["rows"]
        ]
        columns = ("model", "stage", ">float32", ">this type", ">speedup", "tokens")
        return [format_machine(found[name]["machine"]), "", *format_table(columns, rows)]

    return table


def format_vision(found: dict[str, Any]) -> list[str]:
    """Format face tracking and mouth crops compared with the reference, and with the roofline."""
    measured = found["vision"]
    machine, clips = measured["machine"], measured["clips"]
    rows = []
    for name, clip in clips.items():
        cost = {way: times["all"] for way, times in clip["ms_per_frame"].items()}
        times = (
            f"{cost['reference']:.0f} ms",
            f"{cost['ours']:.2f} ms",
            f"**{clip['speedup']:.0f}×**",
            f"{cost['ours_live']:.2f} ms, {clip['speedup_live']:.0f}×",
        )
        offsets = (_format_offset(way) for way in (clip, clip["live"], clip["reference"]))
        shares = (f"{clip['with_face_percent'][way]:.0f} %" for way in ("ours", "reference"))
        rows.append((name, *times, *offsets, f"{clip['lost']} of {clip['compared']}", *shares))
    columns = ("clip", ">reference, per frame", ">Gorggle, per frame", ">speedup", ">live, video only")
    offsets = (">mouth offset, median (95 %)", ">live", ">reference itself", ">lost")
    shares = (">frames with a face", ">reference")
    by_clip = format_table((*columns, *offsets, *shares), rows)
    rows, floors_ms = [], vision_roofline_ms(clips, machine)
    for stage, name in VISION_STAGES.items():
        usual, ours, live = (
            _mean_known([clip["ms_per_frame"][way].get(stage) for clip in clips.values()])
            for way in ("reference", "ours", "ours_live")
        )
        floor = floors_ms.get(stage)
        of_floor = "" if not floor or ours is None else f"{ours / floor:.0f}×"
        rows.append((name, *map(_format_ms, (usual, ours, live, floor)), of_floor))
    columns = ("mean of the clips, per frame", ">reference", ">Gorggle", ">live, video only", ">floor")
    by_stage = format_table((*columns, ">multiple of floor"), rows)
    return [format_machine(machine), "", *by_clip, "", *by_stage]


# Vision stages and their names in the table.
VISION_STAGES = {
    "detect": "face detection",
    "landmarks": "landmarks",
    "rest": "other tracking",
    "crop": "crop",
    "warp and crop": "warp and crop",
    "lip activity": "lip activity",
}


def _format_offset(way: dict[str, Any]) -> str:
    found = way["mouth_offset_percent"]
    return f"{found['median']:.2f} % ({found['p95']:.2f} %)"


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _format_ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def format_end_to_end(found: dict[str, Any]) -> list[str]:
    """Format the end-to-end times."""
    measured = found["whole"]
    lines = [format_machine(measured["machine"]), ""]
    for row in measured["rows"]:
        stages = plots.sort_stages({**row["ours"], **row["reference"]})
        sides = (row["ours"], row["reference"])
        rows = [(stage, *(format_seconds(side.get(stage)) for side in sides)) for stage in stages]
        lines += format_table((MODELS[row["model"]], ">Gorggle", ">reference"), rows)
        together = f"| **all** | **{row['ours_s']:.2f} s** |"
        if row["reference_s"] is not None:
            same = "identical tokens" if row["tokens_identical"] else "TOKENS DIFFER"
            together += f" {row['reference_s']:.1f} s, **{row['ratio']:.1f}×**, {same} |"
        speed = f"{row['times_real_time']:.1f} times real time, for a clip of {measured['clip_s']:g} s."
        lines += [together, "", speed, ""]
    lines.append(f"Its audio features take {measured['audio_features_s'] * 1000:.1f} ms.")
    return lines


def format_stream_scaling(found: dict[str, Any]) -> list[str]:
    """Format the cost of n streams."""
    columns = (
        "the demo clip as",
        ">streams",
        ">all transcribed after",
        ">per stream",
        ">CPU time per stream",
    )
    rows = [
        (
            kind["kind"],
            str(count := step["streams"]),
            f"{step['wall_s']:.2f} s",
            f"{step['wall_s'] / count:.2f} s",
            f"{step['cpu_s'] / count:.2f} s",
        )
        for kind in found["growth"]["kinds"]
        for step in kind["steps"]
    ]
    return format_table(columns, rows)


def format_backends(found: dict[str, Any]) -> list[str]:
    """Format the comparison of onnxruntime with torch."""
    measured = found["backends"]
    rows = [
        (
            row["stage"],
            f"{1e3 * row['torch_s']:.0f} ms",
            f"{1e3 * row['onnxruntime_s']:.0f} ms",
            f"**{row['ratio']:.2f}×**",
            {True: "identical", False: "differ", None: ""}[row.get("tokens_identical")],
        )
        for row in measured["rows"]
    ]
    loading = measured["loading"]
    for name, kind, unit in (("import and loading", "seconds", "s"), ("peak memory", "megabytes", "MB")):
        torch, light = loading["torch"][kind], loading["onnxruntime"][kind]
        digits = 2 if unit == "s" else 0
        texts = (f"{value:.{digits}f} {unit}" for value in (torch, light))
        rows.append((name, *texts, f"**{torch / light:.1f}×**", ""))
    return [
        format_machine(measured["machine"]),
        "",
        *format_table(("stage", ">torch", ">onnxruntime", ">ratio", "hypotheses"), rows),
    ]


def format_startup(found: dict[str, Any]) -> list[str]:
    """Format startup times."""
    measured = found["startup"]
    rows = (
        ("`import gorggle`", f"{measured['import_gorggle_s']:.2f} s"),
        ("`gorggle serve` with the embedded model, until ready", f"{measured['server_ready_s']:.1f} s"),
        ("additional time of the first clip", f"{max(0.0, measured['first_clip_extra_s']):.2f} s"),
    )
    return format_table(("startup", ">time"), rows)


def format_load(name: str) -> Callable[[dict[str, Any]], list[str]]:
    """Return a formatter of the service's capacity and overload behaviour."""

    def table(found: dict[str, Any]) -> list[str]:
        measured = found[name]
        kind = {"crops": "crops and audio", "video": "video of 640×480"}[measured["kind"]]
        heading = f"**{measured['capacity']} real-time streams of {kind}** on {measured['cores']} cores."
        rows = [
            (
                str(step["streams"]),
                format_seconds(step["final_delay_p50_s"]),
                format_seconds(step["final_delay_p95_s"]),
                f"{step['server_cpus']:.2f}",
                "no" if step["missed"] else "yes",
            )
            for step in sorted(measured["steps"], key=lambda step: step["streams"])
        ]
        columns = (">streams", ">final result latency, median", ">95 %", ">CPUs used", "within target")
        overload, admission = measured["overload"], measured["admission_control"]
        alone, crowded = overload["admitted_alone"], overload["admitted_crowded"]
        filled = (
            f"A server limited to {overload['streams']} streams refused {overload['refused']} of {overload['extra_calls']} extra calls, "
            f"within {overload['refused_max_s'] * 1000:.0f} ms at most; meanwhile 95 % of the final results of admitted streams "
            f"came within {format_seconds(crowded['final_delay_p95_s'])} ({format_seconds(alone['final_delay_p95_s'])} without extra calls)."
        )
        offered = (
            f"With {admission['offered']} concurrent streams offered, a server with default settings admitted {admission['admitted']['streams']} "
            f"by its own capacity estimate; 95 % of their final results came within "
            f"{format_seconds(admission['admitted']['final_delay_p95_s'])}."
        )
        return [heading, "", *format_table(columns, rows), "", filled, offered]

    return table


def format_seconds(value: float | None) -> str:
    """Format seconds for a table cell; empty for None."""
    return "" if value is None else f"{value:.3f} s"


def format_ratio(ratio: float | None) -> str:
    """Format a ratio for a table cell; empty for None."""
    return "" if ratio is None else f"**{ratio:.2f}×**"


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "engine": format_engine,
    "engine-int8": format_weights("engine-int8"),
    "engine-bfloat16": format_weights("engine-bfloat16"),
    "vision": format_vision,
    "whole": format_end_to_end,
    "growth": format_stream_scaling,
    "startup": format_startup,
    "backends": format_backends,
    "load-crops": format_load("load-crops"),
    "load-video": format_load("load-video"),
}


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    write_report(options.results, options.docs)


if __name__ == "__main__":
    main()
