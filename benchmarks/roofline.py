"""Roofline estimates: time of a stage at the machine's peak rates."""

from __future__ import annotations

from typing import Any

# The landmark predictor adds 15 x 500 leaves of 136 numbers. The detector works on an image pyramid with a scale of 5/6:
# 36/11 of the image's pixels. For each cell of 8 x 8 it computes 31 features, to which five separable filters of 10 x 10
# cells are applied; its gradients take about 20 operations per pixel.
LEAF_BYTES = 15 * 500 * 136 * 4
OPERATIONS_PER_PIXEL = 36 / 11 * (20 + 31 * 5 * 2 * (10 + 10) / 64)


def roofline_s(row: dict[str, Any], machine: dict[str, Any]) -> float | None:
    """Return the time of a row's operations or memory traffic at peak rates, whichever is longer."""
    if row["gflop"] is None:
        return None
    return max(row["gflop"] / machine["gflops"], row.get("gigabytes", 0.0) / machine["gigabytes_per_s"])


def vision_roofline_ms(clips: dict[str, Any], machine: dict[str, Any]) -> dict[str, float]:
    """Return the time of face detection and landmarks at peak rates, in ms per frame."""
    fits, pixels = (
        sum(clip[key] for clip in clips.values()) / len(clips)
        for key in ("landmark_fits_per_frame", "searched_px_per_frame")
    )
    return {
        "detect": pixels * OPERATIONS_PER_PIXEL / machine["gflops"] / 1e6,
        "landmarks": fits * LEAF_BYTES / machine["gigabytes_per_s"] / 1e6,
    }
