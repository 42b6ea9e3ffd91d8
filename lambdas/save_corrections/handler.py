"""Keeps a corrected result as a new version, with captions of its own; versions before it stay."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from lambdas.common import jobs, objects
from lambdas.common.corrections import CorrectionError, corrected, corrections_of
from lambdas.common.environment import settings
from lambdas.common.http import Request, Response, bad_request, conflict, is_too_large, owner_of, route
from lambdas.common.jobs import JobTable
from lambdas.common.observation import count
from lambdas.common.ownership import job_of
from lambdas.common.publishing import publish

# A job's item has to stay below DynamoDB's 400 kB.
MAX_VERSIONS = 200


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    results_bucket: str


@route
def handler(request: Request) -> Response:
    """Answer ``PUT /jobs/{job_id}/result``."""
    chosen = settings(Settings)
    table = JobTable(chosen.jobs_table)
    job = job_of(request, table)
    document = request.document()
    base = _base_version(document, job)
    before = objects.read_json(
        chosen.results_bucket, objects.result_key(job["job_id"], _folder(job, base), "json")
    )
    try:
        result = corrected(before, corrections_of(document))
    except CorrectionError as error:
        raise bad_request(str(error)) from error
    # A folder of its own even where two are saved at once: files of the version that is kept are never overwritten.
    folder = f"{base + 1}-{secrets.token_hex(4)}"
    entry = {
        "version": base + 1,
        "folder": folder,
        "base": base,
        "created_at": jobs.now(),
        "by": owner_of(request),
    }
    publish(chosen.results_bucket, job["job_id"], folder, result)
    # The files first: a version that the job names is always there.
    values = {"result_version": base + 1, "versions": [*job["versions"], entry]}
    if not table.change(job["job_id"], values, only_in=(jobs.DONE,), expecting={"result_version": base}):
        raise conflict("somebody else saved a version meanwhile: load it and correct that one")
    count("Corrections")
    answer = json.dumps({"version": base + 1, "result": result}, ensure_ascii=False)
    # What is too large to be answered is fetched like any version.
    return Response(HTTPStatus.OK, {"version": base + 1} if is_too_large(answer) else answer)


def _folder(job: dict[str, Any], version: int) -> str:
    folder: str = next(one["folder"] for one in job["versions"] if one["version"] == version)
    return folder


def _base_version(document: dict[str, Any], job: dict[str, Any]) -> int:
    if job["state"] != jobs.DONE:
        raise conflict(f"the job is {job['state']}: only the result of one that is done can be corrected")
    base, latest = document.get("base_version"), int(job["result_version"])
    if isinstance(base, bool) or not isinstance(base, int):
        raise bad_request("base_version is missing: send the number of the version that was corrected")
    if base != latest:
        raise conflict(f"version {base} was corrected, the latest is {latest}: correct that one")
    if latest >= MAX_VERSIONS:
        raise conflict(f"the result has {MAX_VERSIONS} versions: no more are kept")
    return base
