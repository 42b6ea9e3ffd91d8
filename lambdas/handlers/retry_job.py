"""Runs a failed job again, as a new attempt with separate intermediate objects."""

from __future__ import annotations

from http import HTTPStatus

from gorggle_lambdas.common import job_table
from gorggle_lambdas.common.api_gateway import Request, Response, conflict, route
from gorggle_lambdas.common.job_access import get_owned_job
from gorggle_lambdas.common.job_slots import JobSlots
from gorggle_lambdas.common.job_slots import SlotSettings as Settings
from gorggle_lambdas.common.job_table import to_api
from gorggle_lambdas.common.settings import load_settings

MAX_ATTEMPTS = 20


@route
def handler(request: Request) -> Response:
    """Answer ``POST /jobs/{job_id}/retry``."""
    slots = JobSlots(load_settings(Settings))
    table = slots.table
    job = get_owned_job(request, table)
    if job["state"] != job_table.FAILED:
        raise conflict(f"the job is {job['state']}: only a failed job can be retried")
    if "version_id" not in job:
        raise conflict("the job's video was never uploaded: create a new upload")
    attempt = int(job["attempt"]) + 1
    if attempt > MAX_ATTEMPTS:
        raise conflict(f"the job has failed {MAX_ATTEMPTS} times: upload the video again")
    values = {"state": job_table.WAITING, "stage": "waiting", "attempt": attempt, "windows": {}}
    if not table.update(
        job["job_id"], values, allowed_states=(job_table.FAILED,), expected={"attempt": attempt - 1}
    ):
        raise conflict("the job was restarted concurrently")
    updated = table.get(job["job_id"])
    assert updated is not None, "the job was updated just before"
    slots.start_waiting_jobs(new_job=updated)
    return Response(HTTPStatus.ACCEPTED, to_api(table.get(job["job_id"]) or updated))
