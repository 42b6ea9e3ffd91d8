"""Read objects from Amazon S3 in chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from gorggle_server.errors import InvalidMediaError, InvalidRequestError, NotFoundError

CHUNK_BYTES = 256 * 1024
# Error codes of S3 for an object that does not exist or that we may not read.
_NOT_FOUND_CODES = {
    "NoSuchKey",
    "NoSuchBucket",
    "NoSuchVersion",
    "404",
    "AccessDenied",
    "403",
    "InvalidArgument",
}


@dataclass(frozen=True)
class S3Location:
    """Bucket, key and optional version of an object."""

    bucket: str
    key: str
    version_id: str | None = None

    @classmethod
    def parse(cls, uri: str) -> S3Location:
        """Parse ``s3://BUCKET/KEY`` or ``s3://BUCKET/KEY?versionId=ID``; the key may be percent-encoded.

        Raises:
            InvalidRequestError: the URI is malformed.
        """
        parts = urlsplit(uri)
        key = unquote(parts.path.removeprefix("/"))
        if parts.scheme != "s3" or not parts.netloc or not key or parts.fragment:
            raise InvalidRequestError(f"{uri!r} is not a URI of the form s3://BUCKET/KEY")
        query = parse_qs(parts.query)
        if set(query) - {"versionId"}:
            raise InvalidRequestError(
                f"{uri!r} has a query other than ?versionId=ID: percent-encode a '?' in a key"
            )
        return cls(parts.netloc, key, query.get("versionId", [None])[0])

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def read_object(location: S3Location, *, max_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of an object in chunks.

    Raises:
        NotFoundError: the object does not exist, or the server may not read it.
        InvalidMediaError: it is larger than ``max_bytes``.
    """
    # boto3 takes a third of a second to import: import it only when it is used.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    version = {"VersionId": location.version_id} if location.version_id else {}
    try:
        answer = boto3.client("s3").get_object(Bucket=location.bucket, Key=location.key, **version)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NOT_FOUND_CODES:
            raise NotFoundError(f"{location} does not exist, or the server's role may not read it") from error
        raise
    except BotoCoreError as error:
        raise NotFoundError(f"{location} cannot be reached: {error}") from error
    if answer["ContentLength"] > max_bytes:
        answer["Body"].close()
        raise InvalidMediaError(f"{location} holds {answer['ContentLength']} bytes; the limit is {max_bytes}")
    with contextlib.closing(answer["Body"]) as body:
        yield from body.iter_chunks(CHUNK_BYTES)
