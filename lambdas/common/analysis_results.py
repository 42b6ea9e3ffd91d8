"""All that one run found out about a video, read from S3 into what fusion takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas import fusion
from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.errors import WindowMissingError
from gorggle_lambdas.common.task_events import JobEvent
from gorggle_lambdas.fusion.types import FaceBox, FaceTrack, Inputs, SourceFailure, SourceName, Window

TRANSCRIBE, REKOGNITION = "Amazon Transcribe", "Amazon Rekognition"
NO_FACE_REASON = "no face was seen: read from the sound alone"


@dataclass(frozen=True)
class AnalysisResults:
    """What was found.

    Attributes:
        inputs: for fusion.
        audio_engine, face_engine: who was asked: "transcribe", "rekognition", "server", "none".
        server_time_s: how long the server read, all windows together.
    """

    inputs: Inputs
    audio_engine: str
    face_engine: str
    server_time_s: float


@dataclass(frozen=True)
class _SourceWindows:
    """One source's windows: those that were read, and why others are lost."""

    windows: tuple[Window, ...] | None
    failures: tuple[SourceFailure, ...]
    model: dict[str, str] | None = None
    server_time_s: float = 0.0


def load_analysis_results(bucket: str, job: JobEvent) -> AnalysisResults:
    """Read everything of a run.

    Raises:
        WindowMissingError: a window was neither read nor noted as lost.
        FusionInputError: a document is not what it should be.
    """
    folder = _WorkFolder(bucket, job)
    plan = folder.read("plan.json")
    media = fusion.parse_media(plan["media"])
    lips = _load_windows(folder, plan, "lips") if plan["reads_lips"] else _SourceWindows(None, ())
    sound, language, engine = _load_audio(folder, plan, job, lips)
    faces, faces_failures, face_engine = _load_faces(folder, plan, job, lips)
    inputs = Inputs(
        media=media,
        lips=lips.windows,
        audio=sound.windows,
        faces=faces,
        noise=fusion.parse_noise(folder.read("noise.json")),
        failures=(*lips.failures, *sound.failures, *faces_failures),
        model=fusion.parse_model(lips.model) if lips.model else None,
        language=language or job.options.language,
        audio_engine=engine,
        face_engine=face_engine,
    )
    return AnalysisResults(
        inputs,
        job.options.sound if plan["reads_sound"] else "none",
        job.options.faces if plan["media"]["video_codec"] else "none",
        lips.server_time_s + sound.server_time_s,
    )


def compute_usage(results: AnalysisResults) -> dict[str, float]:
    """The amounts that a job is billed by, but for the functions' own time."""
    duration_s = results.inputs.media.duration_s
    has_sound, has_faces = results.inputs.audio is not None, results.inputs.faces is not None
    hears_itself = results.audio_engine == "server"
    return {
        "windows": len(results.inputs.lips or ()) + len(results.inputs.audio or ()) * hears_itself,
        "transcribed_s": duration_s if results.audio_engine == "transcribe" and has_sound else 0.0,
        "searched_s": duration_s if results.face_engine == "rekognition" and has_faces else 0.0,
        "gpu_s": round(results.server_time_s, 3),
    }


class _WorkFolder:
    """What one run has kept."""

    def __init__(self, bucket: str, job: JobEvent) -> None:
        self._bucket = bucket
        self._job = job
        beginning = job.work_key("")
        self.names = {key.removeprefix(beginning) for key in s3_objects.list_keys(bucket, beginning)}

    def read(self, name: str) -> Any:
        return s3_objects.read_json(self._bucket, self._job.work_key(name))

    def read_failure(self, source: SourceName) -> SourceFailure | None:
        """Why a source is lost as a whole."""
        name = f"failures/{source}.json"
        return SourceFailure(source, self.read(name)["reason"]) if name in self.names else None


def _load_windows(folder: _WorkFolder, plan: dict[str, Any], source: SourceName) -> _SourceWindows:
    """A source that the server read window by window."""
    parse = fusion.parse_lip_window if source == "lips" else fusion.parse_audio_window
    whole = folder.read_failure(source)
    windows: list[Window] = []
    failures: list[SourceFailure] = [whole] if whole else []
    model, took_s = None, 0.0
    for planned in plan["windows"]:
        name = s3_objects.window_name(source, planned["index"])
        if name in folder.names:
            document = folder.read(name)
            windows.append(parse(document["window"]))
            took_s += float(document["took_s"])
            model = document["model"] if isinstance(document["model"], dict) else model
            if any(warning["kind"] == "no_face" for warning in document["warnings"]):
                failures.append(SourceFailure(source, NO_FACE_REASON, planned["start_s"], planned["end_s"]))
        elif f"failures/{name}" in folder.names:
            lost = folder.read(f"failures/{name}")
            failures.append(SourceFailure(source, lost["reason"], lost["start"], lost["end"]))
        elif whole is None:
            raise WindowMissingError(
                f"window {planned['index']} of the {source} was neither read nor noted as lost"
            )
    if windows:
        return _SourceWindows(tuple(windows), tuple(failures), model, took_s)
    # One reason for all windows is told once.
    told = {failure.reason: SourceFailure(source, failure.reason) for failure in failures}
    return _SourceWindows(None, tuple(told.values()))


def _load_audio(
    folder: _WorkFolder, plan: dict[str, Any], job: JobEvent, lips: _SourceWindows
) -> tuple[_SourceWindows, str, str]:
    """Who heard what: the windows, the language, and who heard."""
    if not plan["reads_sound"]:
        return _SourceWindows(None, ()), "", ""
    if job.options.sound == "server":
        reading = _load_windows(folder, plan, "sound")
        return reading, "", (lips.model or {}).get("name", "gorggle")
    failure = folder.read_failure("sound")
    if failure is not None:
        return _SourceWindows(None, (failure,)), "", TRANSCRIBE
    document = folder.read("sound/transcription.json")
    window = fusion.parse_transcribe_result(document, plan["media"]["duration_s"])
    return _SourceWindows((window,), ()), fusion.parse_transcribe_language(document), TRANSCRIBE


def _load_faces(
    folder: _WorkFolder, plan: dict[str, Any], job: JobEvent, lips: _SourceWindows
) -> tuple[tuple[FaceTrack, ...] | None, tuple[SourceFailure, ...], str]:
    """Who saw which faces."""
    if job.options.faces == "none" or not plan["media"]["video_codec"]:
        return None, (), ""
    if job.options.faces == "server":
        if lips.windows is None:
            return (
                None,
                (SourceFailure("faces", "the server's faces come with the lips, which were not read"),),
                "",
            )
        return build_server_tracks(lips.windows), (), (lips.model or {}).get("name", "gorggle")
    failure = folder.read_failure("faces")
    if failure is not None:
        return None, (failure,), REKOGNITION
    pages = [folder.read(name) for name in sorted(folder.names) if name.startswith("faces/")]
    return fusion.parse_rekognition_tracks(pages), (), REKOGNITION


def build_server_tracks(windows: tuple[Window, ...]) -> tuple[FaceTrack, ...]:
    """The faces that the server followed while they spoke, one track for each face of a window."""
    boxes: dict[str, list[FaceBox]] = {}
    for number, window in enumerate(windows, 1):
        for segment in window.segments:
            if segment.face_boxes:
                boxes.setdefault(f"server-{number}-{segment.speaker}", []).extend(segment.face_boxes)
    return tuple(
        FaceTrack(name, tuple(sorted(found, key=lambda box: box.time_s))) for name, found in boxes.items()
    )
