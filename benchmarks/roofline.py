"""What a stage would take if the machine did at best what it needs: bytes to move, operations to do."""

from __future__ import annotations

from typing import Any

# The predictor adds up 15 x 500 leaves of 136 numbers. The detector works on a picture and those reduced from it, each to
# 5/6 of the side: 36/11 of its pixels. Of each of their cells of 8 x 8 it makes 31 numbers, which five filters of 10 x 10
# cells go over in rows and columns; its gradients take some 20 operations a pixel.
LEAF_BYTES = 15 * 500 * 136 * 4
OPERATIONS_PER_PIXEL = 36 / 11 * (20 + 31 * 5 * 2 * (10 + 10) / 64)


def roofline_s(row: dict[str, Any], machine: dict[str, Any]) -> float | None:
    """The time that the operations or the bytes of a row take at best, whichever is longer."""
    if row["gflop"] is None:
        return None
    return max(row["gflop"] / machine["gflops"], row.get("gigabytes", 0.0) / machine["gigabytes_per_s"])


def vision_roofline_ms(clips: dict[str, Any], machine: dict[str, Any]) -> dict[str, float]:
    """What finding faces and landmarks would take a frame, in ms, if the machine did at best what they need."""
    fits, pixels = (
        sum(clip[key] for clip in clips.values()) / len(clips)
        for key in ("landmark fits a frame", "pixels searched a frame")
    )
    return {
        "detect": pixels * OPERATIONS_PER_PIXEL / machine["gflops"] / 1e6,
        "landmarks": fits * LEAF_BYTES / machine["gigabytes_per_s"] / 1e6,
    }
