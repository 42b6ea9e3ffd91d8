"""S3 objects: keys of a job's objects, and reading and writing them as JSON."""

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
    """Return the key of a job's video."""
    return f"{UPLOADS_PREFIX}{job_id}/{name}"


def job_prefix(job_id: str) -> str:
    """Return the key prefix of all objects of a job."""
    return f"jobs/{job_id}/"


def work_key(job_id: str, attempt: int, name: str) -> str:
    """Return the key of an intermediate object of one run; a later attempt never sees an earlier one's."""
    return f"{job_prefix(job_id)}work/{attempt}/{name}"


def window_name(source: str, index: int) -> str:
    """Return the name of a transcribed window: ``lips/0007.json``."""
    return f"{source}/{index:04d}.json"


def result_key(job_id: str, folder: str, extension: str) -> str:
    """Return the key of a version of the result in one format: ``jobs/…/results/2-9f3a/result.vtt``."""
    return f"{job_prefix(job_id)}results/{folder}/result.{extension}"


def read_json(bucket: str, key: str) -> Any:
    """Read a JSON object.

    Raises:
        KeyError: it does not exist.
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
    """Write text as UTF-8."""
    aws_clients.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType=content_type)


def create_presigned_url(bucket: str, key: str, expiry_s: int, **extra: str) -> str:
    """Return a URL that grants access to an object for ``expiry_s``; ``extra``: parameters of ``GetObject``."""
    url: str = aws_clients.client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key, **extra}, ExpiresIn=expiry_s
    )
    return url


def to_url_document(url: str, expiry_s: int) -> dict[str, Any]:
    """Return the API's document of a presigned URL."""
    return {"url": url, "expires_in_s": expiry_s}


def list_keys(bucket: str, prefix: str) -> Iterator[str]:
    """Yield the keys with a prefix, in order."""
    pages = aws_clients.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", []):
            yield entry["Key"]


def is_missing(error: ClientError) -> bool:
    """Return whether the error says that the object, or this version of it, does not exist."""
    return aws_clients.get_error_code(error) in _MISSING


def object_exists(bucket: str, key: str, **extra: str) -> bool:
    """Return whether an object exists; ``extra``: parameters of ``HeadObject``."""
    try:
        aws_clients.client("s3").head_object(Bucket=bucket, Key=key, **extra)
    except ClientError as error:
        # Without permission to list the bucket, S3 answers 403 for a missing object.
        if is_missing(error) or aws_clients.get_error_code(error) == "403":
            logger.warning(
                "an object is missing or not readable", key=key, code=aws_clients.get_error_code(error)
            )
            return False
        raise
    return True


def delete_prefix(bucket: str, prefix: str) -> int:
    """Delete every version of every object with a prefix; return their number.

    Raises:
        RuntimeError: S3 could not delete some.
    """
    s3 = aws_clients.client("s3")
    deleted = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        objects = [
            {"Key": entry["Key"], "VersionId": entry["VersionId"]}
            for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]
        if not objects:
            continue
        response = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if response.get("Errors"):
            first = response["Errors"][0]
            raise RuntimeError(f"s3://{bucket}/{first['Key']} could not be deleted: {first.get('Message')}")
        deleted += len(objects)
    return deleted
