"""Starts Amazon Transcribe on the audio, with speaker labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, compute_deadline
from gorggle_lambdas.media.formats import SAMPLE_RATE_HZ

RAISES = (SourceFailedError, AwsUnavailableError)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    results_bucket: str
    max_speaker_labels: int
    transcription_timeout_s: int


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Start the transcription once: a repeated call finds the first one."""
    job, settings = JobEvent.parse(event), load_settings(Settings)
    name = f"gorggle-{job.job_id}-{job.attempt}"
    try:
        aws_clients.client("transcribe").start_transcription_job(**build_request(job, name, settings))
    except ClientError as error:
        if aws_clients.get_error_code(error) == "BadRequestException":
            raise SourceFailedError(
                f"Amazon Transcribe rejected the audio: {_get_error_message(error)}"
            ) from error
        if aws_clients.get_error_code(error) != "ConflictException":
            raise
    return {"name": name, "is_done": False, "deadline": compute_deadline(settings.transcription_timeout_s)}


def build_request(job: JobEvent, name: str, settings: Settings) -> dict[str, Any]:
    """Return the parameters of StartTranscriptionJob."""
    language = job.options.language
    return {
        "TranscriptionJobName": name,
        "Media": {"MediaFileUri": f"s3://{settings.results_bucket}/{job.work_key('audio.wav')}"},
        "MediaFormat": "wav",
        "MediaSampleRateHertz": SAMPLE_RATE_HZ,
        "OutputBucketName": settings.results_bucket,
        "OutputKey": job.work_key("audio/transcription.json"),
        "Settings": {
            "ShowSpeakerLabels": True,
            "MaxSpeakerLabels": settings.max_speaker_labels,
            "ShowAlternatives": True,
            "MaxAlternatives": 2,
        },
        **({"LanguageCode": language} if language else {"IdentifyLanguage": True}),
    }


def _get_error_message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))
