"""Tells how far a job is."""

from __future__ import annotations

from dataclasses import dataclass

from lambdas.common.environment import settings
from lambdas.common.http import Request, Response, route
from lambdas.common.jobs import JobTable, description
from lambdas.common.ownership import job_of


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs/{job_id}``."""
    return Response(body=description(job_of(request, JobTable(settings(Settings).jobs_table))))
