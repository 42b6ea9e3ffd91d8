"""Stores a corrected result as a new version with its captions; earlier versions remain."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from typing import Any

from gorggle_lambdas.common import job_table, s3_objects
from gorggle_lambdas.common.api_gateway import (
    Request,
    Response,
    bad_request,
    conflict,
    is_too_large,
    require_owner,
    route,
)
from gorggle_lambdas.common.corrections import CorrectionError, apply_corrections, parse_corrections
from gorggle_lambdas.common.job_access import find_result_folder, get_owned_job
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count
from gorggle_lambdas.common.result_publisher import publish
from gorggle_lambdas.common.settings import JobResultsSettings as Settings
from gorggle_lambdas.common.settings import load_settings

# A job's item has to stay below DynamoDB's 400 kB.
MAX_VERSIONS = 200


@route
def handler(request: Request) -> Response:
    """Answer ``PUT /jobs/{job_id}/result``."""
    settings = load_settings(Settings)
    table = JobTable(settings.jobs_table)
    job = get_owned_job(request, table)
    document = request.json()
    base = _parse_base_version(document, job)
    current = s3_objects.read_json(
        settings.results_bucket, s3_objects.result_key(job["job_id"], find_result_folder(job, base), "json")
    )
    try:
        result = apply_corrections(current, parse_corrections(document))
    except CorrectionError as error:
        raise bad_request(str(error)) from error
    # A unique folder even with concurrent saves, so that no stored version is overwritten.
    folder = f"{base + 1}-{secrets.token_hex(4)}"
    entry = {
        "version": base + 1,
        "folder": folder,
        "base": base,
        "created_at": job_table.now(),
        "by": require_owner(request),
    }
    publish(settings.results_bucket, job["job_id"], folder, result)
    # Files first, so that a version named in the job always exists.
    values = {"result_version": base + 1, "versions": [*job["versions"], entry]}
    if not table.update(
        job["job_id"], values, allowed_states=(job_table.DONE,), expected={"result_version": base}
    ):
        raise conflict("another version was saved concurrently: reload the result and correct that version")
    count("Corrections")
    response = json.dumps({"version": base + 1, "result": result}, ensure_ascii=False)
    # A result too large for the response is fetched like any version.
    return Response(HTTPStatus.OK, {"version": base + 1} if is_too_large(response) else response)


def _parse_base_version(document: dict[str, Any], job: dict[str, Any]) -> int:
    if job["state"] != job_table.DONE:
        raise conflict(f"the job is {job['state']}: only the result of a finished job can be corrected")
    base, latest = document.get("base_version"), int(job["result_version"])
    if isinstance(base, bool) or not isinstance(base, int):
        raise bad_request("base_version is missing: send the number of the version that was corrected")
    if base != latest:
        raise conflict(f"version {base} was corrected, the latest is {latest}: correct that one")
    if latest >= MAX_VERSIONS:
        raise conflict(f"the result has {MAX_VERSIONS} versions, which is the limit")
    return base
