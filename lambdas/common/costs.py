"""What a video costs: a small model of amounts times unit prices. An estimate before, the measured amounts after.

Counted is what grows with the video: Transcribe, Rekognition, the GPU's time, the Lambdas' time. Not counted is what a
stack costs while it rests. Prices are those of us-east-1, on demand, in US dollars; ``PRICES`` replaces them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from lambdas.common.options import JobOptions


@dataclass(frozen=True)
class Prices:
    """Unit prices in US dollars.

    Attributes:
        transcribe_per_min: Amazon Transcribe, batch.
        rekognition_per_min: Amazon Rekognition, face detection in stored video.
        gpu_per_h: one instance of the fleet.
        lambda_per_gb_s: x86, and the requests beside it do not count.
        gpu_s_per_video_s: how long the GPU works for a second of video, with one window at a time.
        lambda_gb_s_per_video_s: likewise for the functions, mostly waiting for the GPU.
    """

    transcribe_per_min: float = 0.024
    rekognition_per_min: float = 0.10
    gpu_per_h: float = 0.526
    lambda_per_gb_s: float = 0.0000166667
    gpu_s_per_video_s: float = 0.25
    lambda_gb_s_per_video_s: float = 0.6


# Transcribe bills at least so much of each job.
MIN_TRANSCRIBE_S = 15.0


def prices(text: str) -> Prices:
    """Read the prices from JSON; what it lacks is as documented.

    Raises:
        ValueError: no JSON object of numbers with these names.
    """
    if not text.strip():
        return Prices()
    given = json.loads(text)
    known = {field.name for field in fields(Prices)}
    if not isinstance(given, dict) or set(given) - known:
        raise ValueError(
            f"the prices are {text!r}: expected an object with some of {', '.join(sorted(known))}"
        )
    return Prices(**{name: float(value) for name, value in given.items()})


def estimate(duration_s: float, options: JobOptions, unit: Prices) -> dict[str, Any]:
    """What a video will probably cost, in US dollars, by part."""
    reads = (options.lips != "none") + (options.sound == "server")
    return _parts(
        transcribed_s=duration_s if options.sound == "transcribe" else 0.0,
        searched_s=duration_s if options.faces == "rekognition" else 0.0,
        gpu_s=reads * duration_s * unit.gpu_s_per_video_s,
        lambda_gb_s=duration_s * unit.lambda_gb_s_per_video_s,
        unit=unit,
    )


def actual(amounts: dict[str, float], unit: Prices) -> dict[str, Any]:
    """What a video cost, from what was measured: ``transcribed_s``, ``searched_s``, ``gpu_s``, ``lambda_gb_s``."""
    return _parts(**amounts, unit=unit)


def _parts(
    *, transcribed_s: float, searched_s: float, gpu_s: float, lambda_gb_s: float, unit: Prices
) -> dict[str, Any]:
    billed_s = max(transcribed_s, MIN_TRANSCRIBE_S) if transcribed_s else 0.0
    parts = {
        "transcribe": billed_s / 60 * unit.transcribe_per_min,
        "rekognition": searched_s / 60 * unit.rekognition_per_min,
        "gpu": gpu_s / 3600 * unit.gpu_per_h,
        "lambda": lambda_gb_s * unit.lambda_per_gb_s,
    }
    rounded = {name: round(value, 4) for name, value in parts.items()}
    return {"currency": "USD", "total": round(sum(parts.values()), 4), **rounded}
