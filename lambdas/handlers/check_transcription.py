"""Tells whether the transcription is done, and makes sure that its result is there and can be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError, SourceTimeoutError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, has_expired
from gorggle_lambdas.fusion import FusionInputError, parse_transcribe_result

RAISES = (SourceFailedError, SourceTimeoutError, AwsUnavailableError)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    results_bucket: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Give what ``start_transcription`` gave, with ``is_done`` as it is now."""
    job, begun = JobEvent.parse(event), event["sound"]
    answer = aws_clients.client("transcribe").get_transcription_job(TranscriptionJobName=begun["name"])
    found = answer["TranscriptionJob"]
    status = found["TranscriptionJobStatus"]
    if status == "FAILED":
        raise SourceFailedError(
            f"Amazon Transcribe gave up: {found.get('FailureReason', 'it does not say why')}"
        )
    if status == "COMPLETED":
        _validate_result(load_settings(Settings).results_bucket, job.work_key("sound/transcription.json"))
        return {**begun, "is_done": True}
    if has_expired(begun["deadline"]):
        raise SourceTimeoutError("Amazon Transcribe did not finish in the time it was given")
    return {**begun, "is_done": False}


def _validate_result(bucket: str, key: str) -> None:
    """Read the result once, so that one that cannot be read costs the sound alone and not the whole job."""
    try:
        parse_transcribe_result(s3_objects.read_json(bucket, key), 0.0)
    except KeyError as error:
        raise AwsUnavailableError(
            "Amazon Transcribe says it is done, but its result is not there yet"
        ) from error
    except (ValueError, FusionInputError) as error:
        raise SourceFailedError(f"Amazon Transcribe's result cannot be read: {error}") from error
