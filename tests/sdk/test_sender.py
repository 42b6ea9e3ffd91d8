"""Replay buffer and heartbeats of ``MediaSender``."""

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

FIRST_REQUEST = StreamRequest()
CONTENT = bytes(range(200))


def make_sender(
    source: Any, replay_buffer_bytes: int = 10**6, heartbeat_interval_s: float = 10.0, chunk_bytes: int = 10
) -> MediaSender:
    media = sources.open_source(source, SourceOptions(chunk_bytes=chunk_bytes))
    return MediaSender(media, replay_buffer_bytes, heartbeat_interval_s)


def collect_requests(
    sender: MediaSender, acknowledged: int = 0, max_requests: int = 10**6
) -> list[StreamRequest]:
    """Return the requests of one call, without the configuration."""
    requests = sender.requests(FIRST_REQUEST, acknowledged, sender.start_turn())
    assert next(requests) is FIRST_REQUEST
    return [request for _, request in zip(range(max_requests), requests, strict=False)]


@pytest.mark.parametrize("kind", ["path", "file", "bytes", "list", "iterator"])
def test_any_source_can_be_replayed_from_any_request(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    chunks = [CONTENT[start : start + 10] for start in range(0, len(CONTENT), 10)]
    with path.open("rb") as file:
        source = {"path": path, "file": file, "bytes": CONTENT, "list": chunks, "iterator": iter(chunks)}[
            kind
        ]
        sender = make_sender(source)
        first = collect_requests(sender, max_requests=7)
        assert [request.sequence for request in first] == list(range(1, 8))
        for acknowledged in (0, 3, 6):
            rest = collect_requests(sender, acknowledged)
            assert [request.sequence for request in rest] == list(range(acknowledged + 1, 21))
            assert b"".join(request.media for request in rest) == CONTENT[10 * acknowledged :]
        assert sender.bytes_sent == len(CONTENT), "a replayed byte must not be counted twice"
        sender.close()


def test_acknowledged_requests_are_dropped() -> None:
    sender = make_sender(iter([CONTENT]))
    collect_requests(sender)
    sender.check_replayable(0)
    sender.acknowledge(12)
    sender.check_replayable(12)
    assert [request.sequence for request in collect_requests(sender, 12)] == list(range(13, 21))
    with pytest.raises(gorggle.DataLossError, match="requests 6 to 12 must be sent again"):
        sender.check_replayable(5)


def test_the_replay_buffer_is_bounded() -> None:
    sender = make_sender(iter([CONTENT]), replay_buffer_bytes=60)
    collect_requests(sender)
    with pytest.raises(gorggle.DataLossError, match="use replay_buffer_bytes above 60"):
        sender.check_replayable(0)
    assert sender._retained_bytes <= 60


def test_an_idle_source_sends_heartbeats() -> None:
    unblock = threading.Event()

    def slow_source() -> Iterator[bytes]:
        yield b"first"
        unblock.wait(10)
        yield b"second"

    sender = make_sender(slow_source(), heartbeat_interval_s=0.05)
    requests = sender.requests(FIRST_REQUEST, 0, sender.start_turn())
    next(requests)
    kinds = [next(requests).WhichOneof("payload") for _ in range(4)]
    assert kinds == ["media", "heartbeat", "heartbeat", "heartbeat"]
    unblock.set()
    rest = [request for request in requests if request.HasField("media") or request.media]
    assert [(request.media, request.sequence) for request in rest] == [(b"second", 2)]


def test_the_source_is_only_read_on_demand() -> None:
    read_numbers: list[int] = []

    def counting_source() -> Iterator[bytes]:
        for number in range(100):
            read_numbers.append(number)
            yield b"x"

    sender = make_sender(counting_source())
    collect_requests(sender, max_requests=5)
    time.sleep(0.2)
    assert len(read_numbers) <= 6


def test_the_previous_call_stops_sending_when_the_next_starts() -> None:
    sender = make_sender(iter([CONTENT]))
    previous_call = sender.requests(FIRST_REQUEST, 0, sender.start_turn())
    next(previous_call)
    next(previous_call)
    next_call = sender.requests(FIRST_REQUEST, 0, sender.start_turn())
    assert list(previous_call) == []
    assert len(list(next_call)) == 21


def test_crops_and_audio_are_sent_in_chunks() -> None:
    crops = np.arange(3 * 96 * 96, dtype=np.uint32).astype(np.uint8).reshape(3, 96, 96)
    chunks = [MouthCrops(crops, [0.0, 0.04, 0.08], face=7), AudioChunk(np.arange(-3, 5, dtype=np.int16))]
    requests = collect_requests(make_sender(chunks, chunk_bytes=2 * 9216))
    assert [len(request.mouth_crops.offsets) for request in requests] == [2, 1, 0]
    assert b"".join(request.mouth_crops.pixels for request in requests) == crops.tobytes()
    assert requests[1].mouth_crops.face_id == 7
    assert requests[1].mouth_crops.offsets[0].ToMilliseconds() == 80
    assert requests[2].pcm.samples == np.arange(-3, 5, dtype="<i2").tobytes()


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (MouthCrops(np.zeros((2, 96, 96), np.uint8), [0.0]), "2 mouth crops have 1 times"),
        (MouthCrops(np.zeros((2, 88, 88), np.uint8), [0.0, 0.1]), "96"),
        (AudioChunk(np.zeros(4, np.float64)), "int16"),
    ],
)
def test_invalid_chunks_are_refused(chunk: Any, message: str) -> None:
    sender = make_sender([chunk])
    requests = sender.requests(FIRST_REQUEST, 0, turn := sender.start_turn())
    cancelled = threading.Event()

    class Call:
        def cancel(self) -> None:
            cancelled.set()

    turn.call.set_result(Call())
    assert list(requests) == [FIRST_REQUEST]
    assert cancelled.is_set()
    with pytest.raises(gorggle.InvalidSourceError, match=message):
        raise sender.source_error or AssertionError
