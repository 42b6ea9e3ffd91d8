"""Roofline estimates: time of a stage at the machine's peak rates."""

from __future__ import annotations

from typing import Any

# The landmark predictor adds 15 x 500 leaves of 136 numbers. YuNet's convolutions multiply and add 86 million times in an
# image of 320 x 320.
LEAF_BYTES = 15 * 500 * 136 * 4
OPERATIONS_PER_PIXEL = 2 * 86e6 / 320**2


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
