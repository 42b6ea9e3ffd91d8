"""Generates the Grafana dashboard: ``python monitoring/grafana_dashboard.py`` writes gorggle.json, to import into Grafana."""

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
        queries: PromQL by legend; SELECTOR selects the servers.
        unit: as Grafana names it.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    description: str = ""
    stacked: bool = False


def quantiles(metric: str, by: str = "", levels: Iterable[float] = (0.5, 0.95)) -> dict[str, str]:
    """Return queries for quantiles of a histogram, optionally by a label."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return {
        f"{legend}p{share * 100:g}": f"histogram_quantile({share}, sum by ({labels}) "
        f"(rate({metric}_bucket{{{SELECTOR}}}[$__rate_interval])))"
        for share in levels
    }


def rate(metric: str, by: str = "") -> str:
    """Return a query for the rate of a counter, optionally by a label."""
    inner = f"rate({metric}{{{SELECTOR}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def mean(histogram: str) -> str:
    """Return a query for the recent mean of a histogram."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


ROWS: dict[str, list[Panel]] = {
    "Requests": [
        Panel(
            "Streams and limit",
            {
                "streams": f"sum(gorggle_active_streams{{{SELECTOR}}})",
                "limit": f"sum(gorggle_max_streams{{{SELECTOR}}})",
                "ready servers": f"sum(gorggle_up{{{SELECTOR}}})",
            },
        ),
        Panel(
            "Requests by status",
            {"{{code}}": rate("gorggle_grpc_requests_total", "code")},
            "reqps",
            stacked=True,
        ),
        Panel("Errors by class", {"{{error}}": rate("gorggle_errors_total", "error")}, "reqps", stacked=True),
        Panel("Request duration", quantiles("gorggle_grpc_request_duration_seconds", "method"), "s"),
        Panel(
            "Refused requests",
            {
                "share of requests": f'sum(rate(gorggle_grpc_requests_total{{code="RESOURCE_EXHAUSTED", {SELECTOR}}}[$__rate_interval]))'
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
    "Speed": [
        Panel(
            "Real-time factor",
            quantiles("gorggle_real_time_factor"),
            description="Seconds of processing per second of media. Above 1, live streams fall behind.",
        ),
        Panel("Processed media", {"seconds a second": rate("gorggle_media_processed_seconds_total")}),
        Panel(
            "Duration of a 0.4 s step, by stage",
            quantiles("gorggle_stage_duration_seconds", "stage", (0.95,)),
            "s",
            "Each stage must take less than 0.4 s, or live streams fall behind.",
        ),
        Panel("Queue wait", quantiles("gorggle_queue_wait_seconds", "result"), "s"),
        Panel("Encoding of a batch", quantiles("gorggle_encode_duration_seconds"), "s"),
        Panel("Beam search step", quantiles("gorggle_decode_step_duration_seconds"), "s"),
    ],
    "Device": [
        Panel(
            "Batch size",
            {
                "encoded": mean("gorggle_encode_batch_size"),
                "decoded": mean("gorggle_decode_batch_size"),
            },
        ),
        Panel(
            "Load of live streams",
            {
                "streams": f"sum(gorggle_live_streams{{{SELECTOR}}})",
                "expected device utilization": f"avg(gorggle_live_device_load{{{SELECTOR}}})",
                "expected busy CPUs": f"avg(gorggle_live_cpu_load{{{SELECTOR}}})",
                "of these in the server process": f"avg(gorggle_live_gil_load{{{SELECTOR}}})",
            },
        ),
        Panel("Queued utterances", {"queued": f"sum(gorggle_queue_depth{{{SELECTOR}}})"}),
        Panel("Dropped utterances", {"{{cause}}": rate("gorggle_requests_dropped_total", "cause")}, "ops"),
        Panel(
            "Device utilization",
            {
                "share of time": rate("gorggle_device_busy_seconds_total"),
                "GPU utilization (driver)": f"avg(gorggle_gpu_utilisation_ratio{{{SELECTOR}}})",
            },
            "percentunit",
        ),
        Panel("Decoded media", {"seconds a second": rate("gorggle_decoded_media_seconds_total")}),
        Panel("GPU memory", {"{{kind}}": f"sum by (kind) (gorggle_gpu_memory_bytes{{{SELECTOR}}})"}, "bytes"),
    ],
    "Frames and segments": [
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
        Panel("CPU", {"{{instance}}": f"rate(process_cpu_seconds_total{{{SELECTOR}}}[$__rate_interval])"}),
        Panel("Event loop lag", quantiles("gorggle_event_loop_lag_seconds", levels=(0.5, 0.99)), "s"),
        Panel("Tasks", {"{{instance}}": f"gorggle_event_loop_tasks{{{SELECTOR}}}"}),
        Panel("Buffered input", {"{{instance}}": f"gorggle_input_buffer_bytes{{{SELECTOR}}}"}, "bytes"),
    ],
}


def build_dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's format (schema 39, Grafana 10 and later)."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            _grid_position(0, top, COLUMNS, 1) | {"type": "row", "title": title, "id": len(panels) + 1}
        )
        top += 1
        for index, panel in enumerate(row):
            column, line = index * WIDTH % COLUMNS, index * WIDTH // COLUMNS
            panels.append(
                _grid_position(column, top + line * HEIGHT, WIDTH, HEIGHT)
                | _build_panel(panel)
                | {"id": len(panels) + 1}
            )
        top += -(-len(row) * WIDTH // COLUMNS) * HEIGHT
    return {
        "title": "Gorggle",
        "uid": "gorggle",
        "description": "Lip reading: requests, speed, device. Generated by monitoring/grafana_dashboard.py.",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "tags": ["gorggle"],
        "templating": {"list": [_datasource_variable(), _label_variable("job"), _label_variable("instance")]},
        "panels": panels,
    }


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
    """Return a variable that selects servers; initially all."""
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
    """Return the content of the file."""
    return json.dumps(build_dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
