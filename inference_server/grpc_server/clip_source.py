"""Opens the clip of a unary call: bytes in the message, an S3 object, or mouth crops and audio."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from gorggle.v1 import lip_reading_pb2
from gorggle_server import s3
from gorggle_server.errors import InvalidMediaError, InvalidRequestError
from gorggle_server.grpc_server import request_decoding
from gorggle_server.grpc_server.media_receiver import MAX_QUEUED_BYTES, MediaQueue
from gorggle_server.grpc_server.pcm_resampler import resample_clip
from gorggle_server.grpc_server.stream_runner import MediaFeed
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.streaming.crop_input import PreprocessedInput, interleave
from gorggle_server.streaming.queues import InputQueue


def open_clip(
    request: lip_reading_pb2.RecognizeRequest, *, buckets: Collection[str], max_bytes: int
) -> tuple[MediaQueue, MediaFeed]:
    """Return the queue for a clip's media, and the function that fills it.

    Args:
        request: the call's request.
        buckets: S3 buckets that callers may read from.
        max_bytes: maximum size of an S3 object.

    Raises:
        InvalidRequestError: the request has no clip, or names a bucket that is not allowed.
    """
    pipe, preprocessed_queue = BytePipe(MAX_QUEUED_BYTES), InputQueue[PreprocessedInput](MAX_QUEUED_BYTES)
    match request.WhichOneof("source"):
        case "content":
            return pipe, lambda: _feed_chunks(pipe, iter([request.content]))
        case "uri":
            chunks = s3.read_object(_parse_s3_uri(request.uri, buckets), max_bytes=max_bytes)
            return pipe, lambda: _feed_chunks(pipe, chunks)
        case "preprocessed":
            return preprocessed_queue, lambda: _feed_preprocessed(preprocessed_queue, request.preprocessed)
        case _:
            raise InvalidRequestError(
                "the request holds no clip: set content, uri or preprocessed", field="source"
            )


def _parse_s3_uri(uri: str, buckets: Collection[str]) -> s3.S3Location:
    """Return the S3 address, if the operator allows its bucket."""
    address = s3.S3Location.parse(uri)
    if address.bucket not in buckets:
        raise InvalidRequestError(
            f"this server may not read the bucket {address.bucket!r}: "
            "the operator lists the allowed buckets in GORGGLE_S3_BUCKETS",
            field="uri",
        )
    return address


async def _feed_chunks(pipe: BytePipe, chunks: Iterator[bytes]) -> None:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        await pipe.write_async(chunk)


async def _feed_preprocessed(
    queue: InputQueue[PreprocessedInput], clip: lip_reading_pb2.PreprocessedClip
) -> None:
    if not clip.mouth_crops and not clip.HasField("pcm"):
        raise InvalidMediaError("the clip holds neither mouth crops nor audio")
    parts: list[PreprocessedInput] = [*map(request_decoding.decode_mouth_crops, clip.mouth_crops)]
    if clip.HasField("pcm"):
        parts.append(await asyncio.to_thread(resample_clip, request_decoding.decode_pcm(clip.pcm)))
    for chunk in interleave(parts):
        await queue.put(chunk, chunk.size_bytes)
