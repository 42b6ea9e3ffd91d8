"""Reports the health of the API: whether its table is readable, and how many jobs run."""

from __future__ import annotations

from dataclasses import dataclass

from gorggle_lambdas.common.api_gateway import Request, Response, route
from gorggle_lambdas.common.job_slots import list_running_jobs
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.settings import load_settings


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    max_concurrent_jobs: int


@route
def handler(_request: Request) -> Response:
    """Answer ``GET /health``; a problem if the table cannot be read."""
    settings = load_settings(Settings)
    running = len(list_running_jobs(JobTable(settings.jobs_table)))
    return Response(
        body={"status": "ok", "running_jobs": running, "max_concurrent_jobs": settings.max_concurrent_jobs}
    )
