"""Replay of requests when a stream is resumed, and their retention."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gorggle
from gorggle import AudioChunk, MouthCrops, sources
from gorggle._protobuf.encode import StreamRequest
from gorggle._transport.sender import MediaSender
from gorggle.sources import SourceOptions

OPENING = StreamRequest()
CONTENT = bytes(range(200))


def delivery(
    source: Any, replay_buffer_bytes: int = 10**6, heartbeat_interval_s: float = 10.0, chunk_bytes: int = 10
) -> MediaSender:
    media = sources.open_source(source, SourceOptions(chunk_bytes=chunk_bytes))
    return MediaSender(media, replay_buffer_bytes, heartbeat_interval_s)


def sent(delivery: MediaSender, acknowledged: int = 0, most: int = 10**6) -> list[StreamRequest]:
    """Return one call's requests, without the configuration."""
    requests = delivery.requests(OPENING, acknowledged, delivery.start_turn())
    assert next(requests) is OPENING
    return [request for _, request in zip(range(most), requests, strict=False)]


@pytest.mark.parametrize("kind", ["path", "file", "bytes", "list", "iterator"])
def test_any_source_can_be_sent_from_any_request(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    chunks = [CONTENT[start : start + 10] for start in range(0, len(CONTENT), 10)]
    with path.open("rb") as file:
        source = {"path": path, "file": file, "bytes": CONTENT, "list": chunks, "iterator": iter(chunks)}[
            kind
        ]
        made = delivery(source)
        first = sent(made, most=7)
        assert [request.sequence for request in first] == list(range(1, 8))
        for acknowledged in (0, 3, 6):
            rest = sent(made, acknowledged)
            assert [request.sequence for request in rest] == list(range(acknowledged + 1, 21))
            assert b"".join(request.media for request in rest) == CONTENT[10 * acknowledged :]
        assert made.bytes_sent == len(CONTENT), "each byte counts once"
        made.close()


def test_acknowledged_requests_are_dropped() -> None:
    made = delivery(iter([CONTENT]))
    sent(made)
    made.check_replayable(0)
    made.acknowledge(12)
    made.check_replayable(12)
    assert [request.sequence for request in sent(made, 12)] == list(range(13, 21))
    with pytest.raises(gorggle.DataLossError, match="requests 6 to 12 must be sent again"):
        made.check_replayable(5)


def test_the_replay_buffer_is_bounded() -> None:
    made = delivery(iter([CONTENT]), replay_buffer_bytes=60)
    sent(made)
    with pytest.raises(gorggle.DataLossError, match="use replay_buffer_bytes above 60"):
        made.check_replayable(0)
    assert made._retained_bytes <= 60


def test_an_idle_source_sends_heartbeats() -> None:
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"first"
        go_on.wait(10)
        yield b"second"

    made = delivery(slow(), heartbeat_interval_s=0.05)
    requests = made.requests(OPENING, 0, made.start_turn())
    next(requests)
    kinds = [next(requests).WhichOneof("payload") for _ in range(4)]
    assert kinds == ["media", "heartbeat", "heartbeat", "heartbeat"]
    go_on.set()
    rest = [request for request in requests if request.HasField("media") or request.media]
    assert [(request.media, request.sequence) for request in rest] == [(b"second", 2)]


def test_the_source_is_read_only_on_request() -> None:
    read: list[int] = []

    def counting() -> Iterator[bytes]:
        for number in range(100):
            read.append(number)
            yield b"x"

    made = delivery(counting())
    sent(made, most=5)
    time.sleep(0.2)
    assert len(read) <= 6


def test_the_previous_call_stops_sending_when_the_next_starts() -> None:
    made = delivery(iter([CONTENT]))
    before = made.requests(OPENING, 0, made.start_turn())
    next(before)
    next(before)
    after = made.requests(OPENING, 0, made.start_turn())
    assert list(before) == []
    assert len(list(after)) == 21


def test_crops_and_audio_are_sent_in_chunks() -> None:
    crops = np.arange(3 * 96 * 96, dtype=np.uint32).astype(np.uint8).reshape(3, 96, 96)
    pieces = [MouthCrops(crops, [0.0, 0.04, 0.08], face=7), AudioChunk(np.arange(-3, 5, dtype=np.int16))]
    requests = sent(delivery(pieces, chunk_bytes=2 * 9216))
    assert [len(request.mouth_crops.offsets) for request in requests] == [2, 1, 0]
    assert b"".join(request.mouth_crops.pixels for request in requests) == crops.tobytes()
    assert requests[1].mouth_crops.face_id == 7
    assert requests[1].mouth_crops.offsets[0].ToMilliseconds() == 80
    assert requests[2].pcm.samples == np.arange(-3, 5, dtype="<i2").tobytes()


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (MouthCrops(np.zeros((2, 96, 96), np.uint8), [0.0]), "2 mouth crops have 1 times"),
        (MouthCrops(np.zeros((2, 88, 88), np.uint8), [0.0, 0.1]), "96"),
        (AudioChunk(np.zeros(4, np.float64)), "int16"),
    ],
)
def test_invalid_chunks_are_refused(piece: Any, words: str) -> None:
    made = delivery([piece])
    requests = made.requests(OPENING, 0, sending := made.start_turn())
    cancelled = threading.Event()

    class Call:
        def cancel(self) -> None:
            cancelled.set()

    sending.call.set_result(Call())
    assert list(requests) == [OPENING]
    assert cancelled.is_set()
    with pytest.raises(gorggle.InvalidSourceError, match=words):
        raise made.source_error or AssertionError
