"""Transcribes one window of the audio with the inference server's audio mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import AwsUnavailableError, ServerStalledError
from gorggle_lambdas.common.inference_client import SERVER_ERRORS
from gorggle_lambdas.common.observability import count, task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, parse_window
from gorggle_lambdas.common.window_transcription import Settings, WindowRequest, transcribe_and_store
from gorggle_lambdas.media.wav_writer import compute_byte_range

RAISES = (ServerStalledError, AwsUnavailableError, *SERVER_ERRORS)


@task
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Stream the window's samples to the server, and store the transcript in S3."""
    job, window, settings = JobEvent.parse(event), parse_window(event), load_settings(Settings)
    response = aws_clients.client("s3").get_object(
        Bucket=settings.results_bucket,
        Key=job.work_key("audio.wav"),
        Range=compute_byte_range(window.start_s, window.end_s),
    )
    samples = np.frombuffer(response["Body"].read(), dtype="<i2")
    request = WindowRequest(modality="audio", start_s=window.start_s, audio=samples)
    output = transcribe_and_store("audio", job, window, request, settings, context)
    count("AudioWindows")
    return output
