"""Transcribes one window of the video with the inference server in a lip reading mode."""

from __future__ import annotations

from typing import Any, cast

from gorggle.results import Modality
from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import (
    AwsUnavailableError,
    InvalidMediaError,
    ObjectNotFoundError,
    ServerStalledError,
)
from gorggle_lambdas.common.inference_client import SERVER_ERRORS
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, parse_window
from gorggle_lambdas.common.window_transcription import Settings, WindowRequest, transcribe_and_store
from gorggle_lambdas.media.clip_extraction import extract_clip
from gorggle_lambdas.media.s3_file import S3File

RAISES = (InvalidMediaError, ObjectNotFoundError, ServerStalledError, AwsUnavailableError, *SERVER_ERRORS)


@task
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Stream the window's clip to the server, and store the transcript in S3."""
    job, window = JobEvent.parse(event), parse_window(event)
    modality = cast("Modality", job.options.lips)
    file = S3File(aws_clients.client("s3"), job.bucket, job.key, job.s3_version_id)
    clip = extract_clip(file, window.start_s, window.end_s, video=True, audio=modality == "av")
    request = WindowRequest(modality=modality, start_s=clip.start_s, chunks=clip.chunks)
    output = transcribe_and_store("lips", job, window, request, load_settings(Settings), context)
    count("LipWindows")
    return output
