"""Constants that separately installed packages define independently have equal values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gorggle import arrays
from gorggle.captions.rules import CaptionRules
from gorggle.rendering import overlay
from gorggle_lambdas.media import formats
from gorggle_server import input_format

WEB = Path(__file__).parents[2] / "clients" / "web" / "src"


def read_constant(file: str, name: str) -> float:
    """Return a numeric constant of the website's TypeScript."""
    (value,) = re.findall(rf"^(?:export )?const {name} = ([\d_.]+);", (WEB / file).read_text(), re.MULTILINE)
    return float(value.replace("_", ""))


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("captions.ts", "MAX_LINE_CHARS", CaptionRules().max_line_chars),
        ("captions.ts", "MAX_CUE_S", CaptionRules().max_duration_ms / 1000),
        ("result.ts", "MAX_BOX_GAP_S", overlay.MAX_BOX_GAP_S),
        ("live/capture.ts", "SAMPLE_RATE_HZ", input_format.SAMPLE_RATE_HZ),
    ],
)
def test_the_website_uses_the_same_constant(file: str, name: str, expected: float) -> None:
    assert read_constant(file, name) == expected


def test_the_sdk_and_the_lambdas_use_the_servers_input_format() -> None:
    assert arrays.SAMPLE_RATE_HZ == formats.SAMPLE_RATE_HZ == input_format.SAMPLE_RATE_HZ
    assert arrays.CROP_SIZE_PX == input_format.MOUTH_CROP_SIZE_PX
