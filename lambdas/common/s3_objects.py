"""Objects in S3: where each thing of a job lies, and reading and writing them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import aws_clients
from gorggle_lambdas.common.observability import logger

UPLOADS_PREFIX = "uploads/"
JSON_TYPE = "application/json"
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})


def upload_key(job_id: str, name: str) -> str:
    """Where a job's video is sent to."""
    return f"{UPLOADS_PREFIX}{job_id}/{name}"


def job_prefix(job_id: str) -> str:
    """What everything that is made for a job begins with."""
    return f"jobs/{job_id}/"


def work_key(job_id: str, attempt: int, name: str) -> str:
    """What one run of the pipeline makes on its way; a later run never sees what an earlier one left."""
    return f"{job_prefix(job_id)}work/{attempt}/{name}"


def window_name(source: str, index: int) -> str:
    """A window that was read: ``lips/0007.json``."""
    return f"{source}/{index:04d}.json"


def result_key(job_id: str, folder: str, extension: str) -> str:
    """A version of the result in one of its forms: ``jobs/…/results/2-9f3a/result.vtt``."""
    return f"{job_prefix(job_id)}results/{folder}/result.{extension}"


def read_json(bucket: str, key: str) -> Any:
    """Read a JSON object.

    Raises:
        KeyError: there is none.
    """
    try:
        body = aws_clients.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if aws_clients.get_error_code(error) in _MISSING:
            raise KeyError(f"s3://{bucket}/{key} does not exist") from error
        raise
    return json.loads(body)


def write_json(bucket: str, key: str, document: Any) -> None:
    """Write a JSON object; NaN and infinity are errors."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(bucket, key, text, JSON_TYPE)


def write_text(bucket: str, key: str, text: str, content_type: str) -> None:
    """Write a text, as UTF-8."""
    aws_clients.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType=content_type)


def create_presigned_url(bucket: str, key: str, expiry_s: int, **extra: str) -> str:
    """An address that gives an object to whoever has it, for ``expiry_s``; ``extra`` as ``GetObject`` takes it."""
    signed: str = aws_clients.client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key, **extra}, ExpiresIn=expiry_s
    )
    return signed


def to_url_document(url: str, expiry_s: int) -> dict[str, Any]:
    """What the API answers in the place of an object."""
    return {"url": url, "expires_in_s": expiry_s}


def list_keys(bucket: str, prefix: str) -> Iterator[str]:
    """The keys that begin so, in order."""
    pages = aws_clients.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for found in page.get("Contents", []):
            yield found["Key"]


def is_missing(error: ClientError) -> bool:
    """Whether the object, or this version of it, does not exist."""
    return aws_clients.get_error_code(error) in _MISSING


def object_exists(bucket: str, key: str, **extra: str) -> bool:
    """Whether an object exists; ``extra`` as ``HeadObject`` takes it."""
    try:
        aws_clients.client("s3").head_object(Bucket=bucket, Key=key, **extra)
    except ClientError as error:
        # Who may not list a bucket is not told what it lacks: S3 forbids looking instead.
        if is_missing(error) or aws_clients.get_error_code(error) == "403":
            logger.warning(
                "an object is not there, or may not be read", key=key, code=aws_clients.get_error_code(error)
            )
            return False
        raise
    return True


def delete_prefix(bucket: str, prefix: str) -> int:
    """Delete every version of every object whose key begins so; how many there were.

    Raises:
        RuntimeError: S3 kept some.
    """
    s3 = aws_clients.client("s3")
    deleted = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        found = [
            {"Key": one["Key"], "VersionId": one["VersionId"]}
            for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]
        if not found:
            continue
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise RuntimeError(f"s3://{bucket}/{first['Key']} could not be deleted: {first.get('Message')}")
        deleted += len(found)
    return deleted
