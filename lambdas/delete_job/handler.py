"""Stops a job and deletes its video, its results and itself, in this order: a second try finds what is left."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from botocore.exceptions import ClientError

from lambdas.common import aws, objects
from lambdas.common.environment import settings
from lambdas.common.http import Request, Response, route
from lambdas.common.jobs import JobTable
from lambdas.common.observation import count
from lambdas.common.ownership import job_of
from lambdas.common.places import free_place

_GONE = frozenset({"ExecutionDoesNotExist", "ValidationException"})


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    uploads_bucket: str
    results_bucket: str


@route
def handler(request: Request) -> Response:
    """Answer ``DELETE /jobs/{job_id}``."""
    chosen = settings(Settings)
    table = JobTable(chosen.jobs_table)
    job = job_of(request, table)
    job_id: str = job["job_id"]
    if job.get("execution_arn"):
        _stop(job["execution_arn"])
    objects.delete_all(chosen.uploads_bucket, f"{objects.UPLOADS}{job_id}/")
    objects.delete_all(chosen.results_bucket, objects.prefix(job_id))
    table.delete(job_id)
    free_place(table, job_id)
    count("DeletedJobs")
    return Response(HTTPStatus.NO_CONTENT)


def _stop(execution_arn: str) -> None:
    try:
        aws.client("stepfunctions").stop_execution(
            executionArn=execution_arn, error="Deleted", cause="the job was deleted"
        )
    except ClientError as error:
        # Executions are forgotten after ninety days; one that has ended cannot be stopped.
        if aws.code_of(error) not in _GONE:
            raise
