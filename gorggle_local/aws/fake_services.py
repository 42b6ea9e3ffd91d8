"""Stand-ins for Amazon Transcribe and Amazon Rekognition, which cannot be had here.

They answer in the shape of the real services, with what a clip's truth says (``examples/demo.json`` beside
``demo.mp4``): they hear and see nothing themselves. Where there is no truth they fail, and say that they are stand-ins.
This is the only place that makes such answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL = "a stand-in of the local AWS"
# Transcribe is never quite sure.
CONFIDENCE = "0.96"
FACE_SAMPLE_INTERVAL_MS = 500


class NoTruthError(Exception):
    """There is no truth for this clip."""


@dataclass(frozen=True)
class GroundTruth:
    """The truths in some folders, by the clips' names without extension."""

    folders: tuple[Path, ...]

    def load(self, name: str) -> dict[str, Any]:
        """The truth of a clip.

        Raises:
            NoTruthError: there is none.
        """
        stem = Path(name).stem
        for folder in self.folders:
            path = folder / f"{stem}.json"
            if path.is_file():
                truth: dict[str, Any] = json.loads(path.read_text("utf-8"))
                return truth
        raise NoTruthError(f"{LABEL} knows nothing of {stem!r}: it answers from a clip's truth, {stem}.json")


def build_transcription(truth: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What Transcribe would write to S3, with speaker labels, had it heard every word right."""
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
    """What GetFaceDetection would answer: where the faces are, twice a second."""
    found = [
        {"Timestamp": at_ms, "Face": {"BoundingBox": box, "Confidence": 99.9}}
        for at_ms in range(0, int(truth["duration_s"] * 1000), FACE_SAMPLE_INTERVAL_MS)
        for box in _bounding_boxes(truth)
    ]
    first = page * page_faces
    answer: dict[str, Any] = {
        "JobStatus": "SUCCEEDED",
        "VideoMetadata": {
            "Codec": "h264",
            "DurationMillis": int(truth["duration_s"] * 1000),
            "Format": LABEL,
        },
        "Faces": found[first : first + page_faces],
    }
    if first + page_faces < len(found):
        answer["NextToken"] = str(page + 1)
    return answer


def _bounding_boxes(truth: Mapping[str, Any]) -> list[dict[str, float]]:
    """One face for each speaker, side by side from left to right, as in the clips of the examples."""
    speakers = len({sentence["speaker"] for sentence in truth["sentences"]}) or 1
    width = 1 / speakers
    return [
        {"Left": (index + 0.3) * width, "Top": 0.25, "Width": 0.4 * width, "Height": 0.5}
        for index in range(speakers)
    ]
