"""Grafana's dashboard as code: ``python monitoring/grafana_dashboard.py`` writes gorggle.json anew; import that into Grafana.

Panels are told by what they show, with which queries, and in which unit; where they stand follows from their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("gorggle.json")
WIDTH, HEIGHT, COLUMNS = 8, 8, 24
SELECTOR = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        queries: PromQL by what it shows in the legend; PLACE stands for the servers that were chosen.
        unit: as Grafana names it.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    description: str = ""
    stacked: bool = False


def quantiles(metric: str, by: str = "", levels: Iterable[float] = (0.5, 0.95)) -> dict[str, str]:
    """Quantiles of a histogram, by a label if one is given."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return {
        f"{legend}p{share * 100:g}": f"histogram_quantile({share}, sum by ({labels}) "
        f"(rate({metric}_bucket{{{SELECTOR}}}[$__rate_interval])))"
        for share in levels
    }


def rate(metric: str, by: str = "") -> str:
    """How fast a counter grows, by a label if one is given."""
    inner = f"rate({metric}{{{SELECTOR}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def mean(histogram: str) -> str:
    """The mean of what a histogram has seen lately."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


ROWS: dict[str, list[Panel]] = {
    "Calls": [
        Panel(
            "Streams and places",
            {
                "streams": f"sum(gorggle_active_streams{{{SELECTOR}}})",
                "places": f"sum(gorggle_max_streams{{{SELECTOR}}})",
                "servers that serve": f"sum(gorggle_up{{{SELECTOR}}})",
            },
        ),
        Panel(
            "Calls by status",
            {"{{code}}": rate("gorggle_grpc_requests_total", "code")},
            "reqps",
            stacked=True,
        ),
        Panel("Errors by class", {"{{error}}": rate("gorggle_errors_total", "error")}, "reqps", stacked=True),
        Panel("How long calls take", quantiles("gorggle_grpc_request_duration_seconds", "method"), "s"),
        Panel(
            "Refused for want of a place",
            {
                "share of calls": f'sum(rate(gorggle_grpc_requests_total{{code="RESOURCE_EXHAUSTED", {SELECTOR}}}[$__rate_interval]))'
                f" / {rate('gorggle_grpc_requests_total')}"
            },
            "percentunit",
        ),
        Panel(
            "Versions",
            {"{{version}}": f"sum by (version) (gorggle_build_info{{{SELECTOR}}})"},
            description="Servers of each version: two during a rolling update.",
        ),
    ],
    "Pace": [
        Panel(
            "Real-time factor",
            quantiles("gorggle_real_time_factor"),
            description="Seconds of work for each second of media. Above 1 a live stream falls behind.",
        ),
        Panel("Media read", {"seconds a second": rate("gorggle_media_processed_seconds_total")}),
        Panel(
            "Each step of 0.4 s of media",
            quantiles("gorggle_stage_duration_seconds", "stage", (0.95,)),
            "s",
            "Decoding, looking for faces, hearing: each has 0.4 s before it falls behind.",
        ),
        Panel("Waiting for the device", quantiles("gorggle_queue_wait_seconds", "result"), "s"),
        Panel("Encoding a batch", quantiles("gorggle_encode_duration_seconds"), "s"),
        Panel("A step of the search", quantiles("gorggle_decode_step_duration_seconds"), "s"),
    ],
    "Device": [
        Panel(
            "Utterances together",
            {
                "encoded": mean("gorggle_encode_batch_size"),
                "searched": mean("gorggle_decode_batch_size"),
            },
        ),
        Panel(
            "Live streams on the machine",
            {
                "streams": f"sum(gorggle_live_streams{{{SELECTOR}}})",
                "expected share of its time": f"avg(gorggle_live_device_load{{{SELECTOR}}})",
                "expected busy processors": f"avg(gorggle_live_cpu_load{{{SELECTOR}}})",
                "of these in the server's process": f"avg(gorggle_live_gil_load{{{SELECTOR}}})",
            },
        ),
        Panel("Utterances waiting", {"waiting": f"sum(gorggle_queue_depth{{{SELECTOR}}})"}),
        Panel("Utterances given up", {"{{cause}}": rate("gorggle_requests_dropped_total", "cause")}, "ops"),
        Panel(
            "Device at work",
            {
                "share of time": rate("gorggle_device_busy_seconds_total"),
                "GPU, as its driver tells": f"avg(gorggle_gpu_utilisation_ratio{{{SELECTOR}}})",
            },
            "percentunit",
        ),
        Panel("Media read by the device", {"seconds a second": rate("gorggle_decoded_media_seconds_total")}),
        Panel("GPU memory", {"{{kind}}": f"sum by (kind) (gorggle_gpu_memory_bytes{{{SELECTOR}}})"}, "bytes"),
    ],
    "Pictures and words": [
        Panel(
            "Frames with a face",
            {
                "share": f"{rate('gorggle_frames_with_faces_total')} / {rate('gorggle_frames_processed_total')}"
            },
            "percentunit",
        ),
        Panel(
            "Faces in a frame",
            {"faces": f"{rate('gorggle_faces_detected_total')} / {rate('gorggle_frames_processed_total')}"},
        ),
        Panel("Segments", {"{{modality}}": rate("gorggle_segments_total", "modality")}, "ops", stacked=True),
    ],
    "Process": [
        Panel("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{SELECTOR}}}"}, "bytes"),
        Panel("Open files", {"{{instance}}": f"process_open_fds{{{SELECTOR}}}"}),
        Panel(
            "Processors", {"{{instance}}": f"rate(process_cpu_seconds_total{{{SELECTOR}}}[$__rate_interval])"}
        ),
        Panel("Event loop late", quantiles("gorggle_event_loop_lag_seconds", levels=(0.5, 0.99)), "s"),
        Panel("Tasks", {"{{instance}}": f"gorggle_event_loop_tasks{{{SELECTOR}}}"}),
        Panel("Media in flight", {"{{instance}}": f"gorggle_input_buffer_bytes{{{SELECTOR}}}"}, "bytes"),
    ],
}


def build_dashboard() -> dict[str, Any]:
    """The whole of it, in Grafana's format (schema 39, Grafana 10 and later)."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            _grid_position(0, top, COLUMNS, 1) | {"type": "row", "title": title, "id": len(panels) + 1}
        )
        top += 1
        for place, panel in enumerate(row):
            column, line = place * WIDTH % COLUMNS, place * WIDTH // COLUMNS
            panels.append(
                _grid_position(column, top + line * HEIGHT, WIDTH, HEIGHT)
                | _build_panel(panel)
                | {"id": len(panels) + 1}
            )
        top += -(-len(row) * WIDTH // COLUMNS) * HEIGHT
    return {
        "title": "Gorggle",
        "uid": "gorggle",
        "description": "Lip reading: calls, pace, device. Generated by monitoring/grafana_dashboard.py.",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "tags": ["gorggle"],
        "templating": {"list": [_datasource_variable(), _label_variable("job"), _label_variable("instance")]},
        "panels": panels,
    }


def list_queries() -> list[str]:
    """Every PromQL expression of the dashboard."""
    return [query for row in ROWS.values() for panel in row for query in panel.queries.values()]


def _build_panel(panel: Panel) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": query,
                "legendFormat": legend,
                "datasource": _DATASOURCE,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _grid_position(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _label_variable(label: str) -> dict[str, Any]:
    """A choice of servers, all of them at first."""
    return {
        "name": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": f"label_values(gorggle_build_info, {label})", "refId": label},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def render() -> str:
    """The file's content."""
    return json.dumps(build_dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
