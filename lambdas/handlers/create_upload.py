"""Makes a job and an address to send its video to: one object, of one type, of a bounded size."""

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
from gorggle_lambdas.common.job_options import JobOptions, OptionsError, parse_options
from gorggle_lambdas.common.job_table import JobTable
from gorggle_lambdas.common.observability import count
from gorggle_lambdas.common.settings import load_settings
from gorggle_lambdas.media.formats import MEDIA_TYPES

MAX_NAME_CHARS = 120
_KNOWN_FIELDS = frozenset({"name", "content_type", "size_bytes", "options"})
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class Settings:
    """See ``functions.toml``."""

    jobs_table: str
    idempotency_table: str
    uploads_bucket: str
    max_upload_bytes: int
    upload_url_expiry_s: int
    job_retention_days: int
    lip_modality: str
    audio_engine: str
    face_engine: str
    language: str


@dataclass(frozen=True)
class Upload:
    """What is to be sent: checked."""

    name: str
    content_type: str
    size_bytes: int | None
    options: JobOptions


@route
def handler(request: Request) -> Response:
    """Answer ``POST /uploads``; with the header ``Idempotency-Key``, once and the same each time."""
    owner, chosen = require_owner(request), load_settings(Settings)
    document = request.json()
    upload = _parse_upload(document, chosen)
    key = request.headers.get("idempotency-key")
    if key is None:
        answer = create_job(upload, owner, chosen)
    else:
        answer = _create_idempotently(key, owner, document, upload, chosen, request.context)
    return Response(HTTPStatus.CREATED, answer, headers={"location": f"/jobs/{answer['job_id']}"})


def create_job(upload: Upload, owner: str, chosen: Settings) -> dict[str, Any]:
    """Make the job, and sign what may be sent for it."""
    job_id = job_table.new_job_id()
    key = s3_objects.upload_key(job_id, upload.name)
    JobTable(chosen.jobs_table).create(
        {
            "job_id": job_id,
            "owner": owner,
            "state": job_table.AWAITING_UPLOAD,
            "name": upload.name,
            "bucket": chosen.uploads_bucket,
            "key": key,
            "options": upload.options.to_document(),
            "expires_at": job_table.compute_expiry(chosen.job_retention_days),
        }
    )
    least, most = (upload.size_bytes,) * 2 if upload.size_bytes else (1, chosen.max_upload_bytes)
    form = aws_clients.client("s3").generate_presigned_post(
        Bucket=chosen.uploads_bucket,
        Key=key,
        Fields={"Content-Type": upload.content_type},
        Conditions=[{"Content-Type": upload.content_type}, ["content-length-range", least, most]],
        ExpiresIn=chosen.upload_url_expiry_s,
    )
    count("Uploads")
    return {
        "job_id": job_id,
        "upload": {"method": "POST", "url": form["url"], "fields": form["fields"]},
        "expires_in_s": chosen.upload_url_expiry_s,
        "max_bytes": most,
    }


def _create_idempotently(
    key: str, owner: str, document: dict[str, Any], upload: Upload, chosen: Settings, context: Any
) -> dict[str, Any]:
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise bad_request("the header Idempotency-Key holds something else than 1 to 128 ASCII signs")
    config = IdempotencyConfig(
        event_key_jmespath="[owner, key]",
        payload_validation_jmespath="body",
        expires_after_seconds=chosen.upload_url_expiry_s,
        raise_on_no_idempotency_key=True,
    )
    config.register_lambda_context(context)
    layer = DynamoDBPersistenceLayer(chosen.idempotency_table, boto3_client=aws_clients.client("dynamodb"))

    def once(*, call: dict[str, Any]) -> dict[str, Any]:
        return create_job(upload, call["owner"], chosen)

    idempotent: Any = idempotent_function(
        once, data_keyword_argument="call", persistence_store=layer, config=config
    )
    try:
        answer: dict[str, Any] = idempotent(call={"owner": owner, "key": key, "body": document})
    except IdempotencyValidationError as error:
        raise conflict("this Idempotency-Key came before with another body: take a new one") from error
    except IdempotencyAlreadyInProgressError as error:
        raise conflict("a request with this Idempotency-Key is being answered: try again shortly") from error
    return answer


def _parse_upload(document: dict[str, Any], chosen: Settings) -> Upload:
    unknown = sorted(set(document) - _KNOWN_FIELDS)
    if unknown:
        raise bad_request(f"the body has {', '.join(unknown)}: known are {', '.join(sorted(_KNOWN_FIELDS))}")
    content_type = document.get("content_type")
    if content_type not in MEDIA_TYPES:
        raise bad_request(
            f"content_type is {content_type!r}: expected one of {', '.join(sorted(MEDIA_TYPES))}"
        )
    size = document.get("size_bytes")
    if size is not None and (
        isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= chosen.max_upload_bytes
    ):
        raise bad_request(
            f"size_bytes is {size!r}: expected a whole number from 1 to {chosen.max_upload_bytes}"
        )
    defaults = JobOptions(chosen.lip_modality, chosen.audio_engine, chosen.face_engine, chosen.language)
    try:
        options = parse_options(document.get("options"), defaults)
    except OptionsError as error:
        raise bad_request(str(error)) from error
    return Upload(sanitize_name(document.get("name", "video")), content_type, size, options)


def sanitize_name(name: Any) -> str:
    """A file's name without its folders and without signs that an S3 key should not have.

    Raises:
        Problem: it is no text.
    """
    if not isinstance(name, str):
        raise bad_request(f"name is a {type(name).__name__}: expected a text")
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")
    return kept[-MAX_NAME_CHARS:] or "video"
