"""Writes a result to S3 in all formats: JSON, WebVTT, SubRip, TTML and plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gorggle.captions import to_plain_text, to_srt, to_ttml, to_vtt
from gorggle.results import Segment, Word
from gorggle_lambdas.common import s3_objects

# Content types of the formats, by file extension.
RESULT_FORMATS = {
    "json": "application/json",
    "vtt": "text/vtt; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "ttml": "application/ttml+xml; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}


def publish(bucket: str, job_id: str, folder: str, document: Mapping[str, Any]) -> None:
    """Write a result document and all formats derived from it; JSON last, so its presence means all are complete."""
    texts = render_formats(document)
    for extension in sorted(texts, key="json".__eq__):
        key = s3_objects.result_key(job_id, folder, extension)
        s3_objects.write_text(bucket, key, texts[extension], RESULT_FORMATS[extension])


def render_formats(document: Mapping[str, Any]) -> dict[str, str]:
    """Return a result document in all formats, by extension."""
    segments = parse_segments(document)
    names = document.get("names") or {}
    return {
        "json": json.dumps(document, ensure_ascii=False, allow_nan=False),
        "vtt": to_vtt(segments, names),
        "srt": to_srt(segments, names),
        "ttml": to_ttml(segments, names, language=str(document.get("language", ""))),
        "txt": to_plain_text(segments, names),
    }


def parse_segments(document: Mapping[str, Any]) -> tuple[Segment, ...]:
    """Return a result document's segments for the caption writers."""
    return tuple(
        Segment(
            segment["start_s"],
            segment["end_s"],
            segment["text"],
            speaker=segment["person"],
            words=tuple(Word(word["text"], word["start_s"], word["end_s"]) for word in segment["words"]),
            is_doubtful=any(word.get("is_doubtful", False) for word in segment["words"]),
        )
        for segment in document["segments"]
    )
