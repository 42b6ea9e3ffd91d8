"""Returns a presigned URL of the uploaded video."""

from __future__ import annotations

from dataclasses import dataclass

from gorggle_lambdas.common import job_table, s3_objects
from gorggle_lambdas.common.api_gateway import Request, Response, conflict, not_found, route
from gorggle_lambdas.common.job_access import get_owned_job
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.common.task_events import UNVERSIONED


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    presigned_url_expiry_s: int


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs/{job_id}/video``.

    The response is JSON, not a redirect, because a video element cannot send a token. The player requests ranges from S3
    directly until the URL expires.
    """
    settings = load_settings(Settings)
    job = get_owned_job(request, JobTable(settings.jobs_table))
    if job["state"] == job_table.AWAITING_UPLOAD:
        raise conflict("the video has not been uploaded yet: use the upload form returned with the job")
    # The job's version: a later upload under this key is another job's.
    version = job.get("version_id", UNVERSIONED)
    extra = {} if version == UNVERSIONED else {"VersionId": version}
    if not s3_objects.object_exists(job["bucket"], job["key"], **extra):
        raise not_found("the video has been deleted; only its transcript is available")
    url = s3_objects.create_presigned_url(job["bucket"], job["key"], settings.presigned_url_expiry_s, **extra)
    return Response(body=s3_objects.to_url_document(url, settings.presigned_url_expiry_s))
