"""Stops a job and deletes its video, its results and its item, in this order, so that a retry is possible."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients, s3_objects
from gorggle_lambdas.common.api_gateway import Request, Response, route
from gorggle_lambdas.common.job_access import get_owned_job
from gorggle_lambdas.common.job_slots import release_slot
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count
from gorggle_lambdas.common.settings import load_settings

_ENDED_EXECUTION_CODES = frozenset({"ExecutionDoesNotExist", "ValidationException"})


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    uploads_bucket: str
    results_bucket: str


@route
def handler(request: Request) -> Response:
    """Answer ``DELETE /jobs/{job_id}``."""
    settings = load_settings(Settings)
    table = JobTable(settings.jobs_table)
    job = get_owned_job(request, table)
    job_id: str = job["job_id"]
    if job.get("execution_arn"):
        _stop_execution(job["execution_arn"])
    s3_objects.delete_prefix(settings.uploads_bucket, f"{s3_objects.UPLOADS_PREFIX}{job_id}/")
    s3_objects.delete_prefix(settings.results_bucket, s3_objects.job_prefix(job_id))
    table.delete(job_id)
    release_slot(table, job_id)
    count("DeletedJobs")
    return Response(HTTPStatus.NO_CONTENT)


def _stop_execution(execution_arn: str) -> None:
    try:
        aws_clients.client("stepfunctions").stop_execution(
            executionArn=execution_arn, error="Deleted", cause="the job was deleted"
        )
    except ClientError as error:
        # Executions expire after ninety days; an ended one cannot be stopped.
        if aws_clients.get_error_code(error) not in _ENDED_EXECUTION_CODES:
            raise
