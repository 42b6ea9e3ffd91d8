"""Creates a job and a presigned form to upload its video: one object of one type and a limited size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyValidationError,
)

from gorggle_lambdas.common import aws_clients, job_table, s3_objects
from gorggle_lambdas.common.api_gateway import Request, Response, bad_request, conflict, require_owner, route
from gorggle_lambdas.common.job_options import JobOptions, OptionsError, OptionSettings, parse_options
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.media.formats import MEDIA_TYPES

MAX_NAME_CHARS = 120
_KNOWN_FIELDS = frozenset({"name", "content_type", "size_bytes", "options"})
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class Settings(OptionSettings):
    """See ``functions.toml``."""

    jobs_table: str
    idempotency_table: str
    uploads_bucket: str
    max_upload_bytes: int
    upload_url_expiry_s: int
    job_retention_days: int


@dataclass(frozen=True)
class Upload:
    """A validated upload request."""

    name: str
    content_type: str
    size_bytes: int | None
    options: JobOptions


@route
def handler(request: Request) -> Response:
    """Answer ``POST /uploads``; idempotent with the header ``Idempotency-Key``."""
    owner, settings = require_owner(request), load_settings(Settings)
    document = request.json()
    upload = _parse_upload(document, settings)
    key = request.headers.get("idempotency-key")
    if key is None:
        response = create_job(upload, owner, settings)
    else:
        response = _create_idempotently(key, owner, document, upload, settings, request.context)
    return Response(HTTPStatus.CREATED, response, headers={"location": f"/jobs/{response['job_id']}"})


def create_job(upload: Upload, owner: str, settings: Settings) -> dict[str, Any]:
    """Create the job and sign its upload form."""
    job_id = job_table.new_job_id()
    key = s3_objects.upload_key(job_id, upload.name)
    JobTable(settings.jobs_table).create(
        {
            "job_id": job_id,
            "owner": owner,
            "state": job_table.AWAITING_UPLOAD,
            "name": upload.name,
            "bucket": settings.uploads_bucket,
            "key": key,
            "options": upload.options.to_document(),
            "expires_at": job_table.compute_expiry(settings.job_retention_days),
        }
    )
    min_bytes, max_bytes = (upload.size_bytes,) * 2 if upload.size_bytes else (1, settings.max_upload_bytes)
    form = aws_clients.client("s3").generate_presigned_post(
        Bucket=settings.uploads_bucket,
        Key=key,
        Fields={"Content-Type": upload.content_type},
        Conditions=[{"Content-Type": upload.content_type}, ["content-length-range", min_bytes, max_bytes]],
        ExpiresIn=settings.upload_url_expiry_s,
    )
    count("Uploads")
    return {
        "job_id": job_id,
        "upload": {"method": "POST", "url": form["url"], "fields": form["fields"]},
        "expires_in_s": settings.upload_url_expiry_s,
        "max_bytes": max_bytes,
    }


def _create_idempotently(
    key: str, owner: str, document: dict[str, Any], upload: Upload, settings: Settings, context: Any
) -> dict[str, Any]:
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise bad_request(
            "the header Idempotency-Key is invalid: expected 1 to 128 printable ASCII characters"
        )
    config = IdempotencyConfig(
        event_key_jmespath="[owner, key]",
        payload_validation_jmespath="body",
        expires_after_seconds=settings.upload_url_expiry_s,
        raise_on_no_idempotency_key=True,
    )
    config.register_lambda_context(context)
    layer = DynamoDBPersistenceLayer(settings.idempotency_table, boto3_client=aws_clients.client("dynamodb"))

    def create_once(*, call: dict[str, Any]) -> dict[str, Any]:
        return create_job(upload, call["owner"], settings)

    idempotent: Any = idempotent_function(
        create_once, data_keyword_argument="call", persistence_store=layer, config=config
    )
    try:
        response: dict[str, Any] = idempotent(call={"owner": owner, "key": key, "body": document})
    except IdempotencyValidationError as error:
        raise conflict("this Idempotency-Key was used with another body: use a new one") from error
    except IdempotencyAlreadyInProgressError as error:
        raise conflict("a request with this Idempotency-Key is in progress; try again shortly") from error
    return response


def _parse_upload(document: dict[str, Any], settings: Settings) -> Upload:
    unknown = sorted(set(document) - _KNOWN_FIELDS)
    if unknown:
        raise bad_request(
            f"unknown fields {', '.join(unknown)}: expected only {', '.join(sorted(_KNOWN_FIELDS))}"
        )
    content_type = document.get("content_type")
    if content_type not in MEDIA_TYPES:
        raise bad_request(
            f"content_type is {content_type!r}: expected one of {', '.join(sorted(MEDIA_TYPES))}"
        )
    size = document.get("size_bytes")
    if size is not None and (
        isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= settings.max_upload_bytes
    ):
        raise bad_request(
            f"size_bytes is {size!r}: expected a whole number from 1 to {settings.max_upload_bytes}"
        )
    try:
        options = parse_options(document.get("options"), settings.default_options)
    except OptionsError as error:
        raise bad_request(str(error)) from error
    return Upload(sanitize_name(document.get("name", "video")), content_type, size, options)


def sanitize_name(name: Any) -> str:
    """Return a file name without directories and without characters unsuitable for an S3 key.

    Raises:
        HttpProblem: it is not a string.
    """
    if not isinstance(name, str):
        raise bad_request(f"name is a {type(name).__name__}: expected a string")
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")
    return kept[-MAX_NAME_CHARS:] or "video"
