"""Where the clip of a unary call comes from: the message itself, S3, or mouth crops and sound."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from gorggle.v1 import lip_reading_pb2
from gorggle_server import s3
from gorggle_server.errors import InvalidMediaError, InvalidRequestError
from gorggle_server.grpc_server import request_decoding
from gorggle_server.grpc_server.media_receiver import MAX_QUEUED_BYTES, MediaQueue
from gorggle_server.grpc_server.stream_runner import MediaFeed
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.streaming.crop_input import PreprocessedInput, interleave
from gorggle_server.streaming.queues import InputQueue


def open_clip(
    request: lip_reading_pb2.RecognizeRequest, *, buckets: Collection[str], max_bytes: int
) -> tuple[MediaQueue, MediaFeed]:
    """Where a clip goes, and what moves it there.

    Args:
        request: the call's.
        buckets: those of S3 that callers may name.
        max_bytes: of an object there.

    Raises:
        InvalidRequestError: the request names no clip, or one that it may not.
    """
    pipe, preprocessed_queue = BytePipe(MAX_QUEUED_BYTES), InputQueue[PreprocessedInput](MAX_QUEUED_BYTES)
    match request.WhichOneof("source"):
        case "content":
            return pipe, lambda: _feed_chunks(pipe, iter([request.content]))
        case "uri":
            pieces = s3.read_object(_parse_s3_uri(request.uri, buckets), max_bytes=max_bytes)
            return pipe, lambda: _feed_chunks(pipe, pieces)
        case "elementary":
            return preprocessed_queue, lambda: _feed_preprocessed(preprocessed_queue, request.elementary)
        case _:
            raise InvalidRequestError("the request holds no clip: set content, uri or elementary")


def _parse_s3_uri(uri: str, buckets: Collection[str]) -> s3.S3Location:
    """An address that the operator allows callers to name."""
    address = s3.S3Location.parse(uri)
    if address.bucket not in buckets:
        raise InvalidRequestError(
            f"this server may not read the bucket {address.bucket!r}: "
            "its operator names the allowed ones in GORGGLE_S3_BUCKETS"
        )
    return address


async def _feed_chunks(pipe: BytePipe, chunks: Iterator[bytes]) -> None:
    while (piece := await asyncio.to_thread(next, chunks, None)) is not None:
        await pipe.write_async(piece)


async def _feed_preprocessed(
    queue: InputQueue[PreprocessedInput], clip: lip_reading_pb2.ElementaryClip
) -> None:
    if not clip.mouth_crops and not clip.HasField("pcm"):
        raise InvalidMediaError("the clip holds neither mouth crops nor sound")
    sound = [request_decoding.decode_pcm(clip.pcm)] if clip.HasField("pcm") else []
    for piece in interleave([*map(request_decoding.decode_mouth_crops, clip.mouth_crops), *sound]):
        await queue.put(piece, piece.size_bytes)
