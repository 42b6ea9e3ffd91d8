"""Fake Amazon Transcribe and Amazon Rekognition.

They return results in the format of the real services, generated from a clip's reference transcript (``examples/demo.json``
for ``demo.mp4``), and fail for clips without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL = "a fake service of the local AWS"
CONFIDENCE = "0.96"
FACE_SAMPLE_INTERVAL_MS = 500


class NoTruthError(Exception):
    """There is no reference transcript for a clip."""


@dataclass(frozen=True)
class GroundTruth:
    """Reference transcripts in some folders, by the clips' names without extension."""

    folders: tuple[Path, ...]

    def load(self, name: str) -> dict[str, Any]:
        """Return the reference transcript of a clip.

        Raises:
            NoTruthError: there is none.
        """
        stem = Path(name).stem
        for folder in self.folders:
            path = folder / f"{stem}.json"
            if path.is_file():
                truth: dict[str, Any] = json.loads(path.read_text("utf-8"))
                return truth
        raise NoTruthError(f"{LABEL} has no reference transcript {stem}.json")


def build_transcription(truth: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the document that Transcribe would write to S3 for a perfect transcription, with speaker labels."""
    items: list[dict[str, Any]] = []
    for sentence in truth["sentences"]:
        speaker = f"spk_{sentence['speaker']}"
        for word in sentence["words"]:
            items.append(
                {
                    "id": len(items),
                    "type": "pronunciation",
                    "alternatives": [{"confidence": CONFIDENCE, "content": word["text"]}],
                    "start_time": f"{word['start_s']:.3f}",
                    "end_time": f"{word['end_s']:.3f}",
                    "speaker_label": speaker,
                }
            )
    text = " ".join(sentence["text"] for sentence in truth["sentences"])
    return {
        "jobName": name,
        "accountId": "123456789012",
        "status": "COMPLETED",
        "results": {
            "transcripts": [{"transcript": text}],
            "language_code": "en-US",
            "speaker_labels": {
                "channel_label": "ch_0",
                "speakers": len({i["speaker_label"] for i in items}),
                "segments": [],
            },
            "items": items,
        },
    }


def build_face_detection(truth: Mapping[str, Any], *, page: int, page_faces: int) -> dict[str, Any]:
    """Return a page of GetFaceDetection: bounding boxes, twice a second."""
    faces = [
        {"Timestamp": at_ms, "Face": {"BoundingBox": box, "Confidence": 99.9}}
        for at_ms in range(0, int(truth["duration_s"] * 1000), FACE_SAMPLE_INTERVAL_MS)
        for box in _bounding_boxes(truth)
    ]
    first = page * page_faces
    result: dict[str, Any] = {
        "JobStatus": "SUCCEEDED",
        "VideoMetadata": {
            "Codec": "h264",
            "DurationMillis": int(truth["duration_s"] * 1000),
            "Format": LABEL,
        },
        "Faces": faces[first : first + page_faces],
    }
    if first + page_faces < len(faces):
        result["NextToken"] = str(page + 1)
    return result


def _bounding_boxes(truth: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return one box per speaker, from left to right, as in the example clips."""
    speakers = len({sentence["speaker"] for sentence in truth["sentences"]}) or 1
    width = 1 / speakers
    return [
        {"Left": (index + 0.3) * width, "Top": 0.25, "Width": 0.4 * width, "Height": 0.5}
        for index in range(speakers)
    ]
