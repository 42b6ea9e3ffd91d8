"""Polls the transcription and validates its result."""

from __future__ import annotations

from typing import Any

from gorggle_fusion import FusionInputError, parse_transcribe_result
from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError, SourceTimeoutError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import ResultsSettings as Settings
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, has_expired

RAISES = (SourceFailedError, SourceTimeoutError, AwsUnavailableError)


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return the output of ``start_transcription`` with ``is_done`` updated."""
    job, transcription = JobEvent.parse(event), event["audio"]
    response = aws_clients.client("transcribe").get_transcription_job(
        TranscriptionJobName=transcription["name"]
    )
    job_info = response["TranscriptionJob"]
    status = job_info["TranscriptionJobStatus"]
    if status == "FAILED":
        raise SourceFailedError(
            f"Amazon Transcribe failed: {job_info.get('FailureReason', 'no reason given')}"
        )
    if status == "COMPLETED":
        _validate_result(load_settings(Settings).results_bucket, job.work_key("audio/transcription.json"))
        return {**transcription, "is_done": True}
    if has_expired(transcription["deadline"]):
        raise SourceTimeoutError("Amazon Transcribe did not finish before the timeout")
    return {**transcription, "is_done": False}


def _validate_result(bucket: str, key: str) -> None:
    """Parse the result now, so that an invalid one fails the audio source and not the job."""
    try:
        parse_transcribe_result(s3_objects.read_json(bucket, key), 0.0)
    except KeyError as error:
        raise AwsUnavailableError(
            "Amazon Transcribe has completed, but its result does not exist yet"
        ) from error
    except (ValueError, FusionInputError) as error:
        raise SourceFailedError(f"Amazon Transcribe's result is invalid: {error}") from error
