"""Gives an address that plays the uploaded video for a while."""

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

    As JSON, not as a redirection: a video element can show no token, so whoever shows one asks first and hands the
    address over. It plays from S3 itself, in ranges, for as long as it works; then another one is asked for.
    """
    chosen = load_settings(Settings)
    job = get_owned_job(request, JobTable(chosen.jobs_table))
    if job["state"] == job_table.AWAITING_UPLOAD:
        raise conflict("the video has not arrived yet: send it to the address that came with the job")
    # The version that was read: another that was sent since under this name is another job's.
    version = job.get("version_id", UNVERSIONED)
    further = {} if version == UNVERSIONED else {"VersionId": version}
    if not s3_objects.object_exists(job["bucket"], job["key"], **further):
        raise not_found("the video is not kept any more: only its transcript is")
    address = s3_objects.create_presigned_url(
        job["bucket"], job["key"], chosen.presigned_url_expiry_s, **further
    )
    return Response(body=s3_objects.to_url_document(address, chosen.presigned_url_expiry_s))
