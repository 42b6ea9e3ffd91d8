"""Looks into the video, takes its sound out, measures noise, plans windows."""

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

# As many fit into the state machine's payload with room to spare; more go through S3 and the distributed map.
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
    """Give what the next states need of the media: what there is to read, and the windows or where they lie."""
    job, chosen = JobEvent.parse(event), load_settings(Settings)
    table = JobTable(chosen.jobs_table)
    table.advance(job.job_id, job.attempt, {"stage": "probing"})
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        file = S3File(aws_clients.client("s3"), job.bucket, job.key, job.s3_version_id)
        found = probe(file, wav, chosen.max_media_duration_s)
        _check_requested_streams(job, found)
        windows = _store_audio_and_plan_windows(job, found, wav, chosen)
    return _store_plan(job, found, windows, table, chosen)


def _check_requested_streams(job: JobEvent, found: Probe) -> None:
    """Say at once what would otherwise come out after all the work.

    Raises:
        InvalidMediaError: what was asked for is not in this video.
    """
    if not found.video_codec and job.options.sound == "none":
        raise InvalidMediaError(
            "the file has no pictures, and its sound was not to be read: ask for the sound"
        )
    if not found.audio_codec and job.options.lips == "none":
        raise InvalidMediaError("the file has no sound, and its lips were not to be read: ask for the lips")


def _store_audio_and_plan_windows(
    job: JobEvent, found: Probe, wav: Path, chosen: Settings
) -> tuple[Window, ...]:
    """Keep the sound and its noise, and plan windows that are cut where it pauses."""
    stretches: list[dict[str, float]] = []
    if found.audio_codec:
        powers = compute_frame_powers(read_waveform(wav))
        stretches = [
            {"start": one.start_s, "end": one.end_s, "snr_db": one.snr_db} for one in estimate_noise(powers)
        ]

        def pause_s(from_s: float, to_s: float) -> float:
            return find_quietest_s(powers, from_s, to_s)

        aws_clients.client("s3").upload_file(
            str(wav), chosen.results_bucket, job.work_key("sound.wav"), ExtraArgs={"ContentType": WAV_TYPE}
        )
    else:

        def pause_s(from_s: float, to_s: float) -> float:
            return (from_s + to_s) / 2

    s3_objects.write_json(chosen.results_bucket, job.work_key("noise.json"), {"stretches": stretches})
    return plan_windows(found.duration_s, chosen.window_duration_s, pause_s, found.keyframes_s)


def _store_plan(
    job: JobEvent, found: Probe, windows: tuple[Window, ...], table: JobTable, chosen: Settings
) -> dict[str, Any]:
    listed = [asdict(window) for window in windows]
    media = {
        "name": job.name,
        "duration_s": found.duration_s,
        "width_px": found.width_px,
        "height_px": found.height_px,
        "frame_rate_hz": found.frame_rate_hz,
        "video_codec": found.video_codec,
        "audio_codec": found.audio_codec,
    }
    reads_lips = bool(found.video_codec) and job.options.lips != "none"
    reads_sound = bool(found.audio_codec) and job.options.sound != "none"
    sound = job.options.sound if reads_sound else "none"
    faces = job.options.faces if found.video_codec else "none"
    plan = {"media": media, "windows": listed, "reads_lips": reads_lips, "reads_sound": reads_sound}
    s3_objects.write_json(chosen.results_bucket, job.work_key("plan.json"), plan)
    s3_objects.write_json(chosen.results_bucket, job.work_key("windows.json"), listed)
    reads = reads_lips + (sound == "server")
    values = {
        "stage": "reading",
        "media": {**media, "rotation_degrees": found.rotation_degrees, "container": found.container},
        "progress": {"windows": len(windows) * reads, "to_read_s": round(found.duration_s * reads, 1)},
        "windows": {},
    }
    bill = estimate_job_cost(
        job,
        found.duration_s,
        reads_lips=reads_lips,
        audio_engine=sound,
        face_engine=faces,
        window_duration_s=chosen.window_duration_s,
        retention_days=chosen.job_retention_days,
        prices=chosen.prices,
    )
    table.advance(job.job_id, job.attempt, {**values, **({"estimate": bill} if bill else {})})
    count("VideoSeconds", found.duration_s)
    is_short = len(windows) <= MAX_INLINE_WINDOWS
    return {
        "duration_s": found.duration_s,
        "sound": sound,
        "faces": faces,
        "lips": job.options.lips if reads_lips else "none",
        "is_short": is_short,
        "windows": listed if is_short else [],
        "window_count": len(windows),
        "windows_key": job.work_key("windows.json"),
    }
