"""From the engine's figures (``benchmarks.engine``) to a table and pictures in ``docs/performance.md``.

.venv/bin/python -m benchmarks.engine_report
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures of make bench: begin -->", "<!-- figures of make bench: end -->"
MODELS = {"embedded": "embedded (gorggle-mini-1)", "base": "Base", "large": "Large"}


def main() -> None:
    """Write the table between its marks, and the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "figures", type=Path, nargs="?", default=Path(__file__).parent / "results" / "engine.json"
    )
    measured = json.loads(parser.parse_args().figures.read_text())
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{after}")
    picture(measured["rows"], DOCS / "images" / "engine-speed.png")
    print(f"written: {page} and docs/images/engine-speed.png")


def table(measured: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine = measured["machine"]
    lines = [
        (
            f"{machine['processor']}, {machine['threads']} thread(s), torch {machine['torch']}, {machine['dtype']}, a clip of "
            f"{machine['clip_s']:g} s, hypotheses of {machine['units']} units; {machine['clock']}, the least of "
            f"{machine['repeats']}; the machine's load was {machine['load']}; a large product of matrices reached "
            f"{machine['gflops']:.0f} GFLOP/s."
        ),
        "",
        "| model | stage | Gorggle | the other | ratio | beside | floor | tokens |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row in measured["rows"]:
        floor = "" if row["gflop"] is None else f"{row['gflop'] / machine['gflops']:.3f} s"
        other = "" if row["theirs_s"] is None else f"{row['theirs_s']:.3f} s"
        ratio = "" if row["ratio"] is None else f"**{row['ratio']:.2f}×**"
        same = {True: "identical", False: "DIFFER", None: ""}[row.get("tokens_identical")]
        lines.append(
            f"| {MODELS[row['model']]} | {row['stage']} | {row['ours_s']:.3f} s | {other} | {ratio} | {row['beside']} "
            f"| {floor} | {same} |"
        )
    if "note" in measured:
        lines += ["", f"({measured['note']})"]
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """The ratios, stage by stage, a colour for each model."""
    compared = [row for row in rows if row["ratio"] is not None]
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
    axes.set_ylabel("times as fast")
    axes.set_title(
        "The engine beside fairseq's modules (front-end: plain torch; utterances: one by one)", fontsize=10
    )
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
