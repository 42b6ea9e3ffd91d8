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

# Rekognition reads H.264 in MP4 and MOV, up to 10 GB; what else there is it says itself, in these.
_REJECTION_CODES = frozenset(
    {"InvalidParameterException", "InvalidS3ObjectException", "VideoTooLargeException"}
)


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    face_detection_timeout_s: int


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Start it once: Rekognition gives the same search for the same token."""
    job, chosen = JobEvent.parse(event), load_settings(Settings)
    where = {"Bucket": job.bucket, "Name": job.key}
    if job.s3_version_id:
        where["Version"] = job.s3_version_id
    try:
        answer = aws_clients.client("rekognition").start_face_detection(
            Video={"S3Object": where},
            ClientRequestToken=f"{job.job_id}-{job.attempt}",
            FaceAttributes="DEFAULT",
            JobTag=job.job_id,
        )
    except ClientError as error:
        if aws_clients.get_error_code(error) in _REJECTION_CODES:
            text = error.response.get("Error", {}).get("Message", "")
            raise SourceFailedError(f"Amazon Rekognition refuses the video: {text}") from error
        raise
    return {
        "search_id": answer["JobId"],
        "is_done": False,
        "deadline": compute_deadline(chosen.face_detection_timeout_s),
    }
