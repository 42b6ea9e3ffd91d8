"""Tells whether the face detection is done, and keeps its pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.errors import AwsUnavailableError, SourceFailedError, SourceTimeoutError
from gorggle_lambdas.common.observability import task
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import JobEvent, has_expired

RAISES = (SourceFailedError, SourceTimeoutError, AwsUnavailableError)

MAX_FACES_PER_PAGE = 1000
# Two looks a second at ten faces for four hours would be 290 pages.
MAX_PAGES = 2000


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    results_bucket: str


@task
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Give what ``start_face_detection`` gave, with ``is_done`` as it is now."""
    job, begun = JobEvent.parse(event), event["faces"]
    page = _get_page(begun["search_id"], None)
    if page["JobStatus"] == "FAILED":
        raise SourceFailedError(
            f"Amazon Rekognition gave up: {page.get('StatusMessage', 'it does not say why')}"
        )
    if page["JobStatus"] == "SUCCEEDED":
        return {**begun, "is_done": True, "pages": _store_pages(job, begun["search_id"], page)}
    if has_expired(begun["deadline"]):
        raise SourceTimeoutError("Amazon Rekognition did not finish in the time it was given")
    return {**begun, "is_done": False}


def _store_pages(job: JobEvent, search_id: str, page: dict[str, Any]) -> int:
    """Write all pages; how many there are."""
    bucket = load_settings(Settings).results_bucket
    for number in range(MAX_PAGES):
        kept = {name: page[name] for name in ("JobStatus", "NextToken", "Faces") if name in page}
        s3_objects.write_json(bucket, job.work_key(f"faces/{number:04d}.json"), kept)
        if not page.get("NextToken"):
            return number + 1
        page = _get_page(search_id, page["NextToken"])
    raise SourceFailedError(f"Amazon Rekognition gave more than {MAX_PAGES} pages of faces")


def _get_page(search_id: str, token: str | None) -> dict[str, Any]:
    further = {"NextToken": token} if token else {}
    answer: dict[str, Any] = aws_clients.client("rekognition").get_face_detection(
        JobId=search_id, MaxResults=MAX_FACES_PER_PAGE, **further
    )
    return answer
