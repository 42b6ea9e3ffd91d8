"""Loads the results of one job run from S3 as the input of fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gorggle_fusion as fusion
from gorggle_fusion.types import (
    FaceBox,
    FaceTrack,
    Inputs,
    Model,
    SourceFailure,
    SourceName,
    Window,
)
from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.errors import WindowMissingError
from gorggle_lambdas.common.task_events import JobEvent

TRANSCRIBE, REKOGNITION = "Amazon Transcribe", "Amazon Rekognition"
NO_FACE_REASON = "no face was detected; only the audio was transcribed"


@dataclass(frozen=True)
class AnalysisResults:
    """Results of all sources.

    Attributes:
        inputs: the input of fusion.
        audio_engine, face_engine: the requested engine: "transcribe", "rekognition", "server" or "none".
        server_time_s: processing time of the inference server, all windows together.
    """

    inputs: Inputs
    audio_engine: str
    face_engine: str
    server_time_s: float


@dataclass(frozen=True)
class _SourceWindows:
    """The transcribed windows of one source, and the failures of the others."""

    windows: tuple[Window, ...] | None
    failures: tuple[SourceFailure, ...]
    model: Model | None = None
    server_time_s: float = 0.0


def load_analysis_results(bucket: str, job: JobEvent) -> AnalysisResults:
    """Load all results of a run.

    Raises:
        WindowMissingError: a window has neither a result nor a recorded failure.
        FusionInputError: a document is invalid.
    """
    folder = _WorkFolder(bucket, job)
    plan = folder.read("plan.json")
    media = fusion.parse_media(plan["media"])
    lips = _load_windows(folder, plan, "lips") if plan["reads_lips"] else _SourceWindows(None, ())
    audio, language, engine = _load_audio(folder, plan, job)
    faces, face_failures, face_engine = _load_faces(folder, plan, job, lips)
    inputs = Inputs(
        media=media,
        lips=lips.windows,
        audio=audio.windows,
        faces=faces,
        noise=fusion.parse_noise(folder.read("noise.json")),
        failures=(*lips.failures, *audio.failures, *face_failures),
        model=lips.model,
        language=language or job.options.language,
        audio_engine=engine,
        face_engine=face_engine,
        audio_has_open_vocabulary=audio.model is None or audio.model.has_open_vocabulary,
    )
    return AnalysisResults(
        inputs,
        job.options.audio if plan["reads_audio"] else "none",
        job.options.faces if plan["media"]["video_codec"] else "none",
        lips.server_time_s + audio.server_time_s,
    )


def compute_usage(results: AnalysisResults) -> dict[str, float]:
    """Return the billed amounts of a job, except for the Lambda time."""
    duration_s = results.inputs.media.duration_s
    has_audio, has_faces = results.inputs.audio is not None, results.inputs.faces is not None
    uses_server_audio = results.audio_engine == "server"
    return {
        "windows": len(results.inputs.lips or ()) + len(results.inputs.audio or ()) * uses_server_audio,
        "transcribed_s": duration_s if results.audio_engine == "transcribe" and has_audio else 0.0,
        "face_detection_s": duration_s if results.face_engine == "rekognition" and has_faces else 0.0,
        "gpu_s": round(results.server_time_s, 3),
    }


class _WorkFolder:
    """The S3 objects of one run."""

    def __init__(self, bucket: str, job: JobEvent) -> None:
        self._bucket = bucket
        self._job = job
        prefix = job.work_key("")
        self.names = {key.removeprefix(prefix) for key in s3_objects.list_keys(bucket, prefix)}

    def read(self, name: str) -> Any:
        return s3_objects.read_json(self._bucket, self._job.work_key(name))

    def read_failure(self, source: SourceName) -> SourceFailure | None:
        """Return why the whole source failed, if it did."""
        name = f"failures/{source}.json"
        return SourceFailure(source, self.read(name)["reason"]) if name in self.names else None


def _load_windows(folder: _WorkFolder, plan: dict[str, Any], source: SourceName) -> _SourceWindows:
    """Load a source that the server transcribed window by window."""
    parse = fusion.parse_lip_window if source == "lips" else fusion.parse_audio_window
    whole = folder.read_failure(source)
    windows: list[Window] = []
    failures: list[SourceFailure] = [whole] if whole else []
    model, processing_s = None, 0.0
    for planned in plan["windows"]:
        name = s3_objects.window_name(source, planned["index"])
        if name in folder.names:
            document = folder.read(name)
            windows.append(parse(document["window"]))
            processing_s += float(document["processing_s"])
            model = fusion.parse_model(document["model"])
            if any(warning["kind"] == "no_face" for warning in document["warnings"]):
                failures.append(SourceFailure(source, NO_FACE_REASON, planned["start_s"], planned["end_s"]))
        elif f"failures/{name}" in folder.names:
            failure = folder.read(f"failures/{name}")
            failures.append(SourceFailure(source, failure["reason"], failure["start"], failure["end"]))
        elif whole is None:
            raise WindowMissingError(
                f"window {planned['index']} of {source} has neither a result nor a recorded failure"
            )
    if windows:
        return _SourceWindows(tuple(windows), tuple(failures), model, processing_s)
    # Report a reason that all windows share once.
    by_reason = {failure.reason: SourceFailure(source, failure.reason) for failure in failures}
    return _SourceWindows(None, tuple(by_reason.values()))


def _load_audio(folder: _WorkFolder, plan: dict[str, Any], job: JobEvent) -> tuple[_SourceWindows, str, str]:
    """Return the audio windows, the language, and the name of the engine."""
    if not plan["reads_audio"]:
        return _SourceWindows(None, ()), "", ""
    if job.options.audio == "server":
        windows = _load_windows(folder, plan, "audio")
        return windows, "", windows.model.name if windows.model else "gorggle"
    failure = folder.read_failure("audio")
    if failure is not None:
        return _SourceWindows(None, (failure,)), "", TRANSCRIBE
    document = folder.read("audio/transcription.json")
    window = fusion.parse_transcribe_result(document, plan["media"]["duration_s"])
    return _SourceWindows((window,), ()), fusion.parse_transcribe_language(document), TRANSCRIBE


def _load_faces(
    folder: _WorkFolder, plan: dict[str, Any], job: JobEvent, lips: _SourceWindows
) -> tuple[tuple[FaceTrack, ...] | None, tuple[SourceFailure, ...], str]:
    """Return the face tracks, their failures, and the name of the engine."""
    if job.options.faces == "none" or not plan["media"]["video_codec"]:
        return None, (), ""
    if job.options.faces == "server":
        if lips.windows is None:
            return (
                None,
                (SourceFailure("faces", "the server's face tracks require lip reading, which failed"),),
                "",
            )
        return build_server_tracks(lips.windows), (), lips.model.name if lips.model else "gorggle"
    failure = folder.read_failure("faces")
    if failure is not None:
        return None, (failure,), REKOGNITION
    pages = [folder.read(name) for name in sorted(folder.names) if name.startswith("faces/")]
    return fusion.parse_rekognition_tracks(pages), (), REKOGNITION


def build_server_tracks(windows: tuple[Window, ...]) -> tuple[FaceTrack, ...]:
    """Return the face tracks of lip reading: one per face of a window."""
    boxes: dict[str, list[FaceBox]] = {}
    for number, window in enumerate(windows, 1):
        for segment in window.segments:
            if segment.face_boxes:
                boxes.setdefault(f"server-{number}-{segment.speaker}", []).extend(segment.face_boxes)
    return tuple(
        FaceTrack(name, tuple(sorted(boxes_of_face, key=lambda box: box.time_s)))
        for name, boxes_of_face in boxes.items()
    )
