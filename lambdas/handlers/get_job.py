"""Returns the state and progress of a job."""

from __future__ import annotations

from gorggle_lambdas.common.api_gateway import Request, Response, route
from gorggle_lambdas.common.job_access import get_owned_job
from gorggle_lambdas.common.job_table import JobTable, to_api
from gorggle_lambdas.common.settings import JobsSettings as Settings
from gorggle_lambdas.common.settings import load_settings


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs/{job_id}``."""
    return Response(body=to_api(get_owned_job(request, JobTable(load_settings(Settings).jobs_table))))
