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
NO_FACE = "no face was seen: read from the sound alone"


@dataclass(frozen=True)
class AnalysisResults:
    """What was found.

    Attributes:
        inputs: for fusion.
        audio_engine, face_engine: who was asked: "transcribe", "rekognition", "server", "none".
        server_s: how long the server read, all windows together.
    """

    inputs: Inputs
    audio_engine: str
    face_engine: str
    server_s: float


@dataclass(frozen=True)
class _Reading:
    """One source's windows: those that were read, and why others are lost."""

    windows: tuple[Window, ...] | None
    failures: tuple[SourceFailure, ...]
    model: dict[str, str] | None = None
    took_s: float = 0.0


def read_findings(bucket: str, job: JobEvent) -> AnalysisResults:
    """Read everything of a run.

    Raises:
        WindowMissingError: a window was neither read nor noted as lost.
        FusionInputError: a document is not what it should be.
    """
    folder = _Folder(bucket, job)
    plan = folder.read("plan.json")
    media = fusion.media(plan["media"])
    lips = _windows(folder, plan, "lips") if plan["reads_lips"] else _Reading(None, ())
    sound, language, engine = _sound(folder, plan, job, lips)
    faces, faces_failures, face_engine = _faces(folder, plan, job, lips)
    inputs = Inputs(
        media=media,
        lips=lips.windows,
        sound=sound.windows,
        faces=faces,
        noise=fusion.noise_stretches(folder.read("noise.json")),
        failures=(*lips.failures, *sound.failures, *faces_failures),
        model=fusion.model(lips.model) if lips.model else None,
        language=language or job.options.language,
        audio_engine=engine,
        face_engine=face_engine,
    )
    return AnalysisResults(
        inputs,
        job.options.sound if plan["reads_sound"] else "none",
        job.options.faces if plan["media"]["video_codec"] else "none",
        lips.took_s + sound.took_s,
    )


def usage_of(findings: AnalysisResults) -> dict[str, float]:
    """The amounts that a job is billed by, but for the functions' own time."""
    duration_s = findings.inputs.media.duration_s
    has_sound, has_faces = findings.inputs.sound is not None, findings.inputs.faces is not None
    hears_itself = findings.audio_engine == "server"
    return {
        "windows": len(findings.inputs.lips or ()) + len(findings.inputs.sound or ()) * hears_itself,
        "transcribed_s": duration_s if findings.audio_engine == "transcribe" and has_sound else 0.0,
        "searched_s": duration_s if findings.face_engine == "rekognition" and has_faces else 0.0,
        "gpu_s": round(findings.server_s, 3),
    }


class _Folder:
    """What one run has kept."""

    def __init__(self, bucket: str, job: JobEvent) -> None:
        self._bucket = bucket
        self._job = job
        beginning = job.work_key("")
        self.names = {key.removeprefix(beginning) for key in s3_objects.keys(bucket, beginning)}

    def read(self, name: str) -> Any:
        return s3_objects.read_json(self._bucket, self._job.work_key(name))

    def failure(self, source: SourceName) -> SourceFailure | None:
        """Why a source is lost as a whole."""
        name = f"failures/{source}.json"
        return SourceFailure(source, self.read(name)["reason"]) if name in self.names else None


def _windows(folder: _Folder, plan: dict[str, Any], source: SourceName) -> _Reading:
    """A source that the server read window by window."""
    parse = fusion.lip_window if source == "lips" else fusion.sound_window
    whole = folder.failure(source)
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
                failures.append(SourceFailure(source, NO_FACE, planned["start_s"], planned["end_s"]))
        elif f"failures/{name}" in folder.names:
            lost = folder.read(f"failures/{name}")
            failures.append(SourceFailure(source, lost["reason"], lost["start"], lost["end"]))
        elif whole is None:
            raise WindowMissingError(
                f"window {planned['index']} of the {source} was neither read nor noted as lost"
            )
    if windows:
        return _Reading(tuple(windows), tuple(failures), model, took_s)
    # One reason for all windows is told once.
    told = {failure.reason: SourceFailure(source, failure.reason) for failure in failures}
    return _Reading(None, tuple(told.values()))


def _sound(folder: _Folder, plan: dict[str, Any], job: JobEvent, lips: _Reading) -> tuple[_Reading, str, str]:
    """Who heard what: the windows, the language, and who heard."""
    if not plan["reads_sound"]:
        return _Reading(None, ()), "", ""
    if job.options.sound == "server":
        reading = _windows(folder, plan, "sound")
        return reading, "", (lips.model or {}).get("name", "gorggle")
    failure = folder.failure("sound")
    if failure is not None:
        return _Reading(None, (failure,)), "", TRANSCRIBE
    document = folder.read("sound/transcription.json")
    window = fusion.transcribe_window(document, plan["media"]["duration_s"])
    return _Reading((window,), ()), fusion.transcribe_language(document), TRANSCRIBE


def _faces(
    folder: _Folder, plan: dict[str, Any], job: JobEvent, lips: _Reading
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
        return server_tracks(lips.windows), (), (lips.model or {}).get("name", "gorggle")
    failure = folder.failure("faces")
    if failure is not None:
        return None, (failure,), REKOGNITION
    pages = [folder.read(name) for name in sorted(folder.names) if name.startswith("faces/")]
    return fusion.rekognition_tracks(pages), (), REKOGNITION


def server_tracks(windows: tuple[Window, ...]) -> tuple[FaceTrack, ...]:
    """The faces that the server followed while they spoke, one track for each face of a window."""
    boxes: dict[str, list[FaceBox]] = {}
    for number, window in enumerate(windows, 1):
        for segment in window.segments:
            if segment.face_boxes:
                boxes.setdefault(f"server-{number}-{segment.speaker}", []).extend(segment.face_boxes)
    return tuple(
        FaceTrack(name, tuple(sorted(found, key=lambda box: box.time_s))) for name, found in boxes.items()
    )
