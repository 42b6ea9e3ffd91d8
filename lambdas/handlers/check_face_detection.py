"""Polls the face detection and stores its result."""

from __future__ import annotations

from typing import Any

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError, SourceTimeoutError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import ResultsSettings as Settings
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, has_expired

RAISES = (SourceFailedError, SourceTimeoutError, AwsUnavailableError)

MAX_FACES_PER_PAGE = 1000
# Two samples a second with ten faces for four hours are 290 pages.
MAX_PAGES = 2000


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return the output of ``start_face_detection`` with ``is_done`` updated."""
    job, detection = JobEvent.parse(event), event["faces"]
    page = _get_page(detection["rekognition_job_id"], None)
    if page["JobStatus"] == "FAILED":
        raise SourceFailedError(f"Amazon Rekognition failed: {page.get('StatusMessage', 'no reason given')}")
    if page["JobStatus"] == "SUCCEEDED":
        return {
            **detection,
            "is_done": True,
            "pages": _store_pages(job, detection["rekognition_job_id"], page),
        }
    if has_expired(detection["deadline"]):
        raise SourceTimeoutError("Amazon Rekognition did not finish before the timeout")
    return {**detection, "is_done": False}


def _store_pages(job: JobEvent, rekognition_job_id: str, page: dict[str, Any]) -> int:
    """Store all pages; return their number."""
    bucket = load_settings(Settings).results_bucket
    for number in range(MAX_PAGES):
        document = {name: page[name] for name in ("JobStatus", "NextToken", "Faces") if name in page}
        s3_objects.write_json(bucket, job.work_key(f"faces/{number:04d}.json"), document)
        if not page.get("NextToken"):
            return number + 1
        page = _get_page(rekognition_job_id, page["NextToken"])
    raise SourceFailedError(f"Amazon Rekognition returned more than {MAX_PAGES} pages of faces")


def _get_page(rekognition_job_id: str, token: str | None) -> dict[str, Any]:
    extra = {"NextToken": token} if token else {}
    response: dict[str, Any] = aws_clients.client("rekognition").get_face_detection(
        JobId=rekognition_job_id, MaxResults=MAX_FACES_PER_PAGE, **extra
    )
    return response
