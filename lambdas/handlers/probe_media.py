"""Probes the video, extracts its audio, estimates noise, and plans windows."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.cost_estimates import estimate_job_cost
from gorggle_lambdas.common.errors import (
    AwsUnavailableError,
    InvalidMediaError,
    JobNotFoundError,
    ObjectNotFoundError,
)
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent
from gorggle_lambdas.media.noise_estimation import compute_frame_powers, estimate_noise, find_quietest_s
from gorggle_lambdas.media.probe import Probe, probe
from gorggle_lambdas.media.s3_file import S3File
from gorggle_lambdas.media.wav_writer import read_waveform
from gorggle_lambdas.media.window_planning import Window, plan_windows

RAISES = (InvalidMediaError, ObjectNotFoundError, JobNotFoundError, AwsUnavailableError)

# Limit of windows in the state machine's payload, with margin; more are read from S3 by the distributed map.
MAX_INLINE_WINDOWS = 30
WAV_TYPE = "audio/wav"


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    results_bucket: str
    max_media_duration_s: int
    window_duration_s: int
    job_retention_days: int
    prices: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return the streams to analyse, and the windows or their S3 key."""
    job, settings = JobEvent.parse(event), load_settings(Settings)
    table = JobTable(settings.jobs_table)
    table.advance(job.job_id, job.attempt, {"stage": "probing"})
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "audio.wav"
        file = S3File(aws_clients.client("s3"), job.bucket, job.key, job.s3_version_id)
        probed = probe(file, wav, settings.max_media_duration_s)
        _check_requested_streams(job, probed)
        windows = _store_audio_and_plan_windows(job, probed, wav, settings)
    return _store_plan(job, probed, windows, table, settings)


def _check_requested_streams(job: JobEvent, probed: Probe) -> None:
    """Reject a video without the requested streams before any work is done.

    Raises:
        InvalidMediaError: the video lacks the requested streams.
    """
    if not probed.video_codec and job.options.audio == "none":
        raise InvalidMediaError("the file has no video, and audio is disabled: enable audio")
    if not probed.audio_codec and job.options.lips == "none":
        raise InvalidMediaError("the file has no audio, and lip reading is disabled: enable lips")


def _store_audio_and_plan_windows(
    job: JobEvent, probed: Probe, wav: Path, settings: Settings
) -> tuple[Window, ...]:
    """Store the audio and its noise, and plan windows with cuts in pauses."""
    spans: list[dict[str, float]] = []
    if probed.audio_codec:
        powers = compute_frame_powers(read_waveform(wav))
        spans = [
            {"start": span.start_s, "end": span.end_s, "snr_db": span.snr_db}
            for span in estimate_noise(powers)
        ]

        def pause_s(from_s: float, to_s: float) -> float:
            return find_quietest_s(powers, from_s, to_s)

        aws_clients.client("s3").upload_file(
            str(wav), settings.results_bucket, job.work_key("audio.wav"), ExtraArgs={"ContentType": WAV_TYPE}
        )
    else:

        def pause_s(from_s: float, to_s: float) -> float:
            return (from_s + to_s) / 2

    s3_objects.write_json(settings.results_bucket, job.work_key("noise.json"), {"spans": spans})
    return plan_windows(probed.duration_s, settings.window_duration_s, pause_s, probed.keyframes_s)


def _store_plan(
    job: JobEvent, probed: Probe, windows: tuple[Window, ...], table: JobTable, settings: Settings
) -> dict[str, Any]:
    window_documents = [asdict(window) for window in windows]
    media = {
        "name": job.name,
        "duration_s": probed.duration_s,
        "width_px": probed.width_px,
        "height_px": probed.height_px,
        "frame_rate_hz": probed.frame_rate_hz,
        "video_codec": probed.video_codec,
        "audio_codec": probed.audio_codec,
    }
    reads_lips = bool(probed.video_codec) and job.options.lips != "none"
    reads_audio = bool(probed.audio_codec) and job.options.audio != "none"
    audio = job.options.audio if reads_audio else "none"
    faces = job.options.faces if probed.video_codec else "none"
    plan = {"media": media, "windows": window_documents, "reads_lips": reads_lips, "reads_audio": reads_audio}
    s3_objects.write_json(settings.results_bucket, job.work_key("plan.json"), plan)
    s3_objects.write_json(settings.results_bucket, job.work_key("windows.json"), window_documents)
    transcriptions = reads_lips + (audio == "server")
    values = {
        "stage": "analyzing",
        "media": {**media, "rotation_degrees": probed.rotation_degrees, "container": probed.container},
        "progress": {
            "windows": len(windows) * transcriptions,
            "total_s": round(probed.duration_s * transcriptions, 1),
        },
        "windows": {},
    }
    cost = estimate_job_cost(
        job,
        probed.duration_s,
        reads_lips=reads_lips,
        audio_engine=audio,
        face_engine=faces,
        window_duration_s=settings.window_duration_s,
        retention_days=settings.job_retention_days,
        prices=settings.prices,
    )
    table.advance(job.job_id, job.attempt, {**values, **({"estimate": cost} if cost else {})})
    count("VideoSeconds", probed.duration_s)
    has_inline_windows = len(windows) <= MAX_INLINE_WINDOWS
    return {
        "duration_s": probed.duration_s,
        "audio": audio,
        "faces": faces,
        "lips": job.options.lips if reads_lips else "none",
        "has_inline_windows": has_inline_windows,
        "windows": window_documents if has_inline_windows else [],
        "window_count": len(windows),
        "windows_key": job.work_key("windows.json"),
    }
