"""Seekable, read-only file object of an S3 object, so that a window of a large video is read without the rest."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any

from botocore.exceptions import ClientError

from gorggle_lambdas.common import s3_objects
from gorggle_lambdas.common.errors import ObjectNotFoundError

BLOCK_BYTES = 4 * 2**20
# An MP4's index, video and audio may be far apart, so several blocks are cached.
MAX_CACHED_BLOCKS = 6


class S3File(io.RawIOBase):
    """One version of an object, read on demand in blocks.

    Exceptions must not reach FFmpeg's C code, which would keep them for a later call: reading ends instead, and ``failure``
    holds the error.

    Raises:
        ObjectNotFoundError: the object, or this version of it, does not exist.
    """

    def __init__(self, s3: Any, bucket: str, key: str, version_id: str = "") -> None:
        super().__init__()
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key, **({"VersionId": version_id} if version_id else {})}
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self.failure: BaseException | None = None
        self.bytes_fetched = 0
        self.size_bytes = int(self._call("head_object")["ContentLength"])

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position without reading."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, at most to the end of a block; empty at the end and after a failure."""
        remaining = self.size_bytes - self._position
        if remaining <= 0 or self.failure is not None:
            return b""
        index, start = divmod(self._position, BLOCK_BYTES)
        try:
            block = self._block(index)
        except Exception as error:
            self.failure = error
            return b""
        data = block[start:] if size < 0 else block[start : start + size]
        self._position += len(data)
        return data

    def _block(self, index: int) -> bytes:
        if index in self._blocks:
            self._blocks.move_to_end(index)
            return self._blocks[index]
        first = index * BLOCK_BYTES
        last = min(first + BLOCK_BYTES, self.size_bytes) - 1
        block: bytes = self._call("get_object", Range=f"bytes={first}-{last}")["Body"].read()
        self.bytes_fetched += len(block)
        self._blocks[index] = block
        if len(self._blocks) > MAX_CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _call(self, operation: str, **extra: Any) -> Any:
        try:
            return getattr(self._s3, operation)(**self._where, **extra)
        except ClientError as error:
            if s3_objects.is_missing(error):
                raise ObjectNotFoundError(
                    f"s3://{self._where['Bucket']}/{self._where['Key']} does not exist: it was deleted or overwritten"
                ) from error
            raise
