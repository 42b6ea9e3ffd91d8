"""Tells how far a job is."""

from __future__ import annotations

from dataclasses import dataclass

from gorggle_lambdas.common.api_gateway import Request, Response, route
from gorggle_lambdas.common.job_access import job_of
from gorggle_lambdas.common.job_table import JobTable, description
from gorggle_lambdas.common.settings import settings


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs/{job_id}``."""
    return Response(body=description(job_of(request, JobTable(settings(Settings).jobs_table))))
