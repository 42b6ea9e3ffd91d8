"""Finding the job that a caller speaks of, and nobody else's."""

from __future__ import annotations

import re
from typing import Any

from gorggle_lambdas.common.api_gateway import Request, not_found, require_owner
from gorggle_lambdas.common.job_table import JobTable

_JOB_ID = re.compile(r"[0-9a-f]{32,40}")


def get_owned_job(request: Request, table: JobTable) -> dict[str, Any]:
    """The job that the path names.

    Raises:
        Problem: there is none, or it is somebody else's: both look the same.
    """
    owner, job_id = require_owner(request), request.path_parameters.get("job_id", "")
    job = table.get(job_id) if _JOB_ID.fullmatch(job_id) else None
    if job is None or job.get("owner") != owner:
        raise not_found(f"there is no job {job_id!r}")
    return job
