"""Access to the caller's own jobs and their results."""

from __future__ import annotations

import re
from typing import Any

from gorggle_lambdas.common.api_gateway import Request, not_found, require_owner
from gorggle_lambdas.common.job_table import JobTable

_JOB_ID = re.compile(r"[0-9a-f]{32,40}")


def get_owned_job(request: Request, table: JobTable) -> dict[str, Any]:
    """Return the job named in the path.

    Raises:
        HttpProblem: it does not exist or has another owner; the responses are the same.
    """
    owner, job_id = require_owner(request), request.path_parameters.get("job_id", "")
    job = table.get(job_id) if _JOB_ID.fullmatch(job_id) else None
    if job is None or job.get("owner") != owner:
        raise not_found(f"there is no job {job_id!r}")
    return job


def find_result_folder(job: dict[str, Any], version: int) -> str:
    """Return the folder of a version of the job's result."""
    folder: str = next(one["folder"] for one in job["versions"] if one["version"] == version)
    return folder
