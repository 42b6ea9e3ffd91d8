"""Streams one window of the video to the server and keeps what it read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import (
    AwsUnavailableError,
    InvalidMediaError,
    ObjectNotFoundError,
    ServerStalledError,
)
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
    get_model_document,
    transcribe_window,
)
from gorggle_lambdas.media.clip_extraction import extract_clip
from gorggle_lambdas.media.s3_file import S3File

RAISES = (InvalidMediaError, ObjectNotFoundError, ServerStalledError, AwsUnavailableError, *SERVER_ERRORS)


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
    """Read a window; its words go to S3, and only where they lie goes on."""
    job, window, chosen = JobEvent.parse(event), WindowEvent.parse(event), load_settings(Settings)
    table = JobTable(chosen.jobs_table)
    modality: Any = job.options.lips
    file = S3File(aws_clients.client("s3"), job.bucket, job.key, job.s3_version_id)
    piece = extract_clip(file, window.start_s, window.end_s, video=True, audio=modality == "av")
    lead_s = window.start_s - piece.start_s

    def tell(read_s: float) -> None:
        read = min(max(0.0, read_s - lead_s), window.end_s - window.start_s)
        table.record_progress(job.job_id, job.attempt, f"lips-{window.index}", read)

    limits = Limits(
        server_stall_timeout_s=chosen.server_stall_timeout_s,
        timeout_s=context.get_remaining_time_in_millis() / 1000 - SHUTDOWN_MARGIN_S,
    )
    with connect_to_server(chosen.server_address, chosen.server_name, chosen.server_client_secret) as client:
        request = WindowRequest(modality=modality, start_s=piece.start_s, chunks=piece.chunks)
        document = transcribe_window(client, request, limits, tell)
        document["model"] = get_model_document(client, document["model"])
    key = job.work_key(s3_objects.window_name("lips", window.index))
    s3_objects.write_json(chosen.results_bucket, key, document)
    tell(lead_s + window.end_s - window.start_s)
    count("LipWindows")
    return {"index": window.index, "segments": len(document["window"]["segments"])}
