"""Returns a result, or a redirect to its presigned URL.

A result too large for a response is returned as a JSON document with its URL. Pages cannot follow a redirect there:
browsers send a null origin on a cross-origin redirect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gorggle_lambdas.common import aws_clients, job_table, s3_objects
from gorggle_lambdas.common.api_gateway import (
    MAX_BODY_BYTES,
    PRESIGNED_URL_TYPE,
    Request,
    Response,
    bad_request,
    conflict,
    is_too_large,
    not_found,
    route,
)
from gorggle_lambdas.common.job_access import find_result_folder, get_owned_job
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.result_publisher import RESULT_FORMATS
from gorggle_lambdas.common.settings import load_settings


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    results_bucket: str
    presigned_url_expiry_s: int


@route
def handler(request: Request) -> Response:
    """Answer ``GET /jobs/{job_id}/result?format=vtt&version=2&inline=true``."""
    settings = load_settings(Settings)
    job = get_owned_job(request, JobTable(settings.jobs_table))
    if job["state"] != job_table.DONE:
        raise conflict(_explain_missing_result(job))
    extension, folder = _parse_extension(request.query), _find_folder(request.query, job)
    content_type = RESULT_FORMATS[extension]
    key = s3_objects.result_key(job["job_id"], folder, extension)
    is_inline = request.query.get("inline", "false").lower() == "true"
    text = _read_text(settings.results_bucket, key) if is_inline else None
    if text is not None:
        return Response(body=text, content_type=content_type)
    # The name of an object uploaded directly may contain anything, and S3 rejects an invalid header.
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", str(job.get("name", "")).rpartition(".")[0]).strip("-") or "video"
    url = s3_objects.create_presigned_url(
        settings.results_bucket,
        key,
        settings.presigned_url_expiry_s,
        ResponseContentType=content_type,
        ResponseContentDisposition=f'inline; filename="{stem}.{extension}"',
    )
    if is_inline:
        document = s3_objects.to_url_document(url, settings.presigned_url_expiry_s)
        return Response(body=document, content_type=PRESIGNED_URL_TYPE)
    return Response(HTTPStatus.FOUND, headers={"location": url})


def _read_text(bucket: str, key: str) -> str | None:
    """Return the result; None if it is too large for a response."""
    s3 = aws_clients.client("s3")
    if s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > MAX_BODY_BYTES:
        return None
    text: str = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    return None if is_too_large(text) else text


def _parse_extension(query: Mapping[str, str]) -> str:
    name = query.get("format", "json")
    if name not in RESULT_FORMATS:
        raise bad_request(f"format is {name!r}: expected one of {', '.join(RESULT_FORMATS)}")
    return name


def _find_folder(query: Mapping[str, str], job: dict[str, Any]) -> str:
    """Return the folder of the requested version; the latest by default."""
    latest = int(job["result_version"])
    text = query.get("version", str(latest))
    if not text.isdecimal() or int(text) < 1:
        raise bad_request(f"version is {text!r}: expected an integer of 1 or more")
    if int(text) > latest:
        raise not_found(f"there is no version {text}: the latest is {latest}")
    return find_result_folder(job, int(text))


def _explain_missing_result(job: Mapping[str, Any]) -> str:
    if job["state"] == job_table.FAILED:
        return (
            f"the job failed, so there is no result: {job.get('failure', {}).get('reason', 'unknown reason')}"
        )
    return f"the job is {job['state']}: try again when it is done"
