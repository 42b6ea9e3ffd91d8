"""Starts Amazon Rekognition's face detection on the video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, compute_deadline

RAISES = (SourceFailedError, AwsUnavailableError)

# Error codes for unsupported videos: Rekognition supports H.264 in MP4 and MOV, up to 10 GB.
_REJECTION_CODES = frozenset(
    {"InvalidParameterException", "InvalidS3ObjectException", "VideoTooLargeException"}
)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    face_detection_timeout_s: int


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Start the detection once: Rekognition returns the same job for the same request token."""
    job, settings = JobEvent.parse(event), load_settings(Settings)
    s3_object = {"Bucket": job.bucket, "Name": job.key}
    if job.s3_version_id:
        s3_object["Version"] = job.s3_version_id
    try:
        response = aws_clients.client("rekognition").start_face_detection(
            Video={"S3Object": s3_object},
            ClientRequestToken=f"{job.job_id}-{job.attempt}",
            FaceAttributes="DEFAULT",
            JobTag=job.job_id,
        )
    except ClientError as error:
        if aws_clients.get_error_code(error) in _REJECTION_CODES:
            text = error.response.get("Error", {}).get("Message", "")
            raise SourceFailedError(f"Amazon Rekognition rejected the video: {text}") from error
        raise
    return {
        "rekognition_job_id": response["JobId"],
        "is_done": False,
        "deadline": compute_deadline(settings.face_detection_timeout_s),
    }
