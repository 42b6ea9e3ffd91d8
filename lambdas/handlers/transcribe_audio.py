"""Streams one window of the sound to the server's audio mode and keeps what it heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError, ServerStalledError
from gorggle_lambdas.common.inference_client import connect_to_server
from gorggle_lambdas.common.inference_errors import SERVER_ERRORS
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, WindowEvent
from gorggle_lambdas.common.window_transcription import (
    SHUTDOWN_MARGIN_S,
    Limits,
    WindowRequest,
    transcribe_window,
)
from gorggle_lambdas.media.wav_writer import compute_byte_range

RAISES = (ServerStalledError, AwsUnavailableError, *SERVER_ERRORS)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    results_bucket: str
    server_address: str
    server_name: str
    server_client_secret: str
    server_stall_timeout_s: int


@task
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Hear a window; its words go to S3, and only where they lie goes on."""
    job, window, chosen = JobEvent.parse(event), WindowEvent.parse(event), load_settings(Settings)
    table = JobTable(chosen.jobs_table)
    answer = aws_clients.client("s3").get_object(
        Bucket=chosen.results_bucket,
        Key=job.work_key("sound.wav"),
        Range=compute_byte_range(window.start_s, window.end_s),
    )
    samples = np.frombuffer(answer["Body"].read(), dtype="<i2")

    def tell(read_s: float) -> None:
        read = min(read_s, window.end_s - window.start_s)
        table.record_progress(job.job_id, job.attempt, f"sound-{window.index}", read)

    limits = Limits(
        server_stall_timeout_s=chosen.server_stall_timeout_s,
        timeout_s=context.get_remaining_time_in_millis() / 1000 - SHUTDOWN_MARGIN_S,
    )
    with connect_to_server(chosen.server_address, chosen.server_name, chosen.server_client_secret) as client:
        request = WindowRequest(modality="audio", start_s=window.start_s, audio=samples)
        document = transcribe_window(client, request, limits, tell)
    key = job.work_key(s3_objects.window_name("sound", window.index))
    s3_objects.write_json(chosen.results_bucket, key, document)
    tell(window.end_s - window.start_s)
    count("AudioWindows")
    return {"index": window.index, "segments": len(document["window"]["segments"])}
