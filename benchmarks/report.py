"""From the figures in ``benchmarks/results`` to the tables and pictures of ``docs/performance.md``.

.venv/bin/python -m benchmarks.report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.roofline import roofline_s, vision_roofline_ms

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = Path(__file__).parent / "results"
MODELS = plots.MODELS


def write_report(results: Path, docs: Path) -> None:
    """Bring the page and its pictures up to what was measured; parts without figures stay as they are."""
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
    print(f"written: {page} and its pictures")


def replace_section(text: str, name: str, lines: Sequence[str]) -> str:
    """The page with what stands between the marks of a part exchanged.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no marks {begin} and {end}: put them where the figures are to stand")
    return f"{before}{begin}\n{chr(10).join(lines)}\n{end}{after}"


def format_machine(machine: dict[str, Any]) -> str:
    """What the figures were taken on."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s), torch {machine['torch']}; "
        f"{machine['clock']}; a large product of matrices reaches {machine['gflops']:.0f} GFLOP/s, memory is read at "
        f"{machine['gigabytes_per_s']:.0f} GB/s; the machine's load at the start was {machine['load']:.1f}."
    )


def format_engine(found: dict[str, Any]) -> list[str]:
    """The engine's stages beside fairseq's."""
    measured = found["engine"]
    machine = measured["machine"]
    lines = [
        (
            f"{format_machine(machine)} {machine['dtype']}, a clip of {machine['clip_s']:g} s, hypotheses of "
            f"{machine['units']} units, the least of {machine['repeats']}."
        ),
        "",
        "| model | stage | Gorggle | the other | ratio | beside | floor | of the floor | tokens |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for row in add_combined_rows(measured["rows"]):
        floor = roofline_s(row, machine)
        cells = (
            MODELS[row["model"]],
            row["stage"],
            format_seconds(row["ours_s"]),
            format_seconds(row["theirs_s"]),
            format_ratio(row["ratio"]),
            row["beside"],
            format_seconds(floor),
            "" if floor is None else f"{row['ours_s'] / floor:.1f}×",
            {True: "identical", False: "DIFFER", None: ""}[row.get("tokens_identical")],
        )
        lines.append(f"| {' | '.join(cells)} |")
    if "note" in measured:
        lines += ["", measured["note"]]
    return lines


def add_combined_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and behind each encoder a row for it and its front-end together: no window has the one without the other."""
    all_rows: list[dict[str, Any]] = []
    for row in rows:
        before = all_rows[-1] if all_rows else None
        all_rows.append(row)
        if row["stage"] == "encoder" and before is not None and before["stage"] == "front-end":
            if row["theirs_s"] is None or before["theirs_s"] is None:
                continue
            both = {key: before[key] + row[key] for key in ("ours_s", "theirs_s", "gflop")}
            stage = {"model": row["model"], "stage": "front-end and encoder", "beside": "both"}
            all_rows.append({**stage, **both, "ratio": both["theirs_s"] / both["ours_s"]})
    return all_rows


def format_weights(name: str) -> Callable[[dict[str, Any]], list[str]]:
    """A table of the engine with weights of another kind beside those of 32 bits, of the same run."""

    def table(found: dict[str, Any]) -> list[str]:
        lines = [
            format_machine(found[name]["machine"]),
            "",
            "| model | stage | float32 | these | times as fast | units as with float32 |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        for row in found[name]["rows"]:
            same = {True: "identical", False: "differ", None: ""}[row.get("tokens_identical")]
            figures = (
                format_seconds(row["theirs_s"]),
                format_seconds(row["ours_s"]),
                format_ratio(row["ratio"]),
            )
            lines.append(f"| {' | '.join((MODELS[row['model']], row['stage'], *figures, same))} |")
        return lines

    return table


def format_vision(found: dict[str, Any]) -> list[str]:
    """Faces to crops beside the usual way, and how far its stages are from what they need at least."""
    measured = found["vision"]
    machine, clips = measured["machine"], measured["clips"]
    lines = [
        format_machine(machine),
        "",
        (
            "| clip | usual way, a frame | Gorggle, a frame | ratio | live, lips alone "
            "| mouth apart, median (95 %) | live | the usual way itself | lost |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, clip in clips.items():
        cost = clip["ms a frame"]
        ours, live, usual = (_format_offset(way) for way in (clip, clip["live"], clip["usual"]))
        lines.append(
            f"| {name} | {cost['usual']['all']:.0f} ms | {cost['ours']['all']:.2f} ms | **{clip['times faster']:.0f}×** "
            f"| {cost['ours, live']['all']:.2f} ms, {clip['times faster, live']:.0f}× "
            f"| {ours} | {live} | {usual} | {clip['lost']} of {clip['compared']} |"
        )
    lines += [
        "",
        "| of the clips' mean, a frame | usual way | Gorggle | live, lips alone | floor | of the floor |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    floors_ms = vision_roofline_ms(clips, machine)
    for stage, name in VISION_STAGES.items():
        usual, ours, live = (
            _mean_known([clip["ms a frame"][way].get(stage) for clip in clips.values()])
            for way in ("usual", "ours", "ours, live")
        )
        floor = floors_ms.get(stage)
        of_floor = "" if not floor or ours is None else f"{ours / floor:.0f}×"
        cells = (name, _format_ms(usual), _format_ms(ours), _format_ms(live), _format_ms(floor), of_floor)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# Stages of seeing, with their names for readers.
VISION_STAGES = {
    "detect": "finding faces",
    "landmarks": "landmarks",
    "rest": "what else following takes",
    "crop": "crop",
    "warp and cut": "warp and cut",
    "movement": "movement of the lips",
}


def _format_offset(way: dict[str, Any]) -> str:
    found = way["mouth apart, % of the eyes' distance"]
    return f"{found['median']:.2f} % ({found['95 %']:.2f} %)"


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _format_ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def format_end_to_end(found: dict[str, Any]) -> list[str]:
    """A file to words."""
    measured = found["whole"]
    lines = [format_machine(measured["machine"]), ""]
    for row in measured["rows"]:
        lines += [f"| {MODELS[row['model']]} | Gorggle | the reference's modules |", "| --- | ---: | ---: |"]
        stages = plots.sort_stages({**row["ours"], **row["reference"]})
        for stage in stages:
            lines.append(
                f"| {stage} | {format_seconds(row['ours'].get(stage))} | {format_seconds(row['reference'].get(stage))} |"
            )
        together = f"| **all** | **{row['ours_s']:.2f} s** |"
        if row["reference_s"] is not None:
            same = "the same units" if row["tokens_identical"] else "OTHER UNITS"
            together += f" {row['reference_s']:.1f} s, **{row['ratio']:.1f}×**, {same} |"
        lines += [
            f"{together}",
            "",
            f"{row['times_real_time']:.1f} times as fast as the clip of {measured['clip_s']:g} s is played.",
            "",
        ]
    lines.append(f"The features of its sound take {measured['audio_features_s'] * 1000:.1f} ms.")
    return lines


def format_stream_scaling(found: dict[str, Any]) -> list[str]:
    """What n streams cost."""
    lines = [
        "| the demo clip as | streams | all read after | a stream | processor, a stream |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in found["growth"]["kinds"]:
        for step in kind["steps"]:
            count = step["streams"]
            lines.append(
                f"| {kind['kind']} | {count} | {step['wall_s']:.2f} s | {step['wall_s'] / count:.2f} s "
                f"| {step['cpu_s'] / count:.2f} s |"
            )
    return lines


def format_startup(found: dict[str, Any]) -> list[str]:
    """How long things take to start."""
    measured = found["startup"]
    return [
        "| start | takes |",
        "| --- | ---: |",
        f"| `import gorggle` | {measured['import_gorggle_s']:.2f} s |",
        f"| `gorggle serve` with the embedded model, until it serves | {measured['server_ready_s']:.1f} s |",
        f"| the first clip, longer than the second | {max(0.0, measured['first_clip_extra_s']):.2f} s |",
    ]


def format_load(name: str) -> Callable[[dict[str, Any]], list[str]]:
    """The service under load, and beyond what it carries."""

    def table(found: dict[str, Any]) -> list[str]:
        measured = found[name]
        kind = {"crops": "crops and sound", "video": "whole video of 640×480"}[measured["kind"]]
        lines = [
            f"**{measured['carried']} streams of {kind}**, each at the pace of life, on {measured['processors']} cores.",
            "",
            "| streams | final results after their media, median | 95 % | processors in use | carried |",
            "| ---: | ---: | ---: | ---: | --- |",
        ]
        lines += [
            f"| {step['streams']} | {format_seconds(step['final_delay_p50_s'])} | {format_seconds(step['final_delay_p95_s'])} "
            f"| {step['server_processors']:.2f} | {'no' if step['missed'] else 'yes'} |"
            for step in sorted(measured["steps"], key=lambda step: step["streams"])
        ]
        beyond, judged = measured["beyond"], measured["by_measured_capacity"]
        before, beside = beyond["admitted_alone"], beyond["admitted_crowded"]
        filled = (
            f"A server filled with {beyond['places']} of them refused {beyond['refused']} of {beyond['extra_calls']} calls "
            f"more, within {beyond['refused_max_s'] * 1000:.0f} ms at most; meanwhile 95 % of the final results of those "
            f"inside came after {format_seconds(beside['final_delay_p95_s'])} ({format_seconds(before['final_delay_p95_s'])} without)."
        )
        offered = (
            f"Offered {judged['offered']} streams at once, a server with the usual settings let {judged['admitted']['streams']} "
            f"in, by its own judgement of what it carries; 95 % of their final results came after "
            f"{format_seconds(judged['admitted']['final_delay_p95_s'])}."
        )
        return [*lines, "", filled, offered]

    return table


def format_seconds(value: float | None) -> str:
    """For a table; nothing where there is nothing."""
    return "" if value is None else f"{value:.3f} s"


def format_ratio(ratio: float | None) -> str:
    """A ratio for a table."""
    return "" if ratio is None else f"**{ratio:.2f}×**"


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "engine": format_engine,
    "engine-int8": format_weights("engine-int8"),
    "engine-bfloat16": format_weights("engine-bfloat16"),
    "vision": format_vision,
    "whole": format_end_to_end,
    "growth": format_stream_scaling,
    "startup": format_startup,
    "load-crops": format_load("load-crops"),
    "load-video": format_load("load-video"),
}


def main() -> None:
    """Write the report anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    write_report(options.results, options.docs)


if __name__ == "__main__":
    main()
