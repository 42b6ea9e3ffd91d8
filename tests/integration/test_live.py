"""Live streams: pauses, heartbeats, interim results and backpressure warnings."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from gorggle import AsyncClient, AudioChunk, Client, Segment, StreamWarning
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, media_pb2
from gorggle_server.events import WarningKind
from gorggle_server.grpc_server import media_receiver
from gorggle_server.grpc_server.media_receiver import CLEAR_LAG_S, WARN_LAG_S, _BackpressureMonitor
from tests import clips
from tests.integration.conftest import DEMO, RunningServer, running_server
from tests.integration.crop_stream import create_chunks

Request = lip_reading_pb2.StreamingRecognizeRequest
HEARTBEAT = Request(heartbeat=lip_reading_pb2.Heartbeat())
SILENCE = np.zeros(16_000, np.int16)


@pytest.fixture(scope="module")
def short_timeout_server() -> Iterator[RunningServer]:
    """Run a server with short timeouts."""
    with running_server(idle_timeout_s=1.0, media_timeout_s=4.0) as running:
        yield running


def silent_audio_request(seconds: int = 1) -> Request:
    return Request(pcm=media_pb2.Pcm(samples=bytes(32_000 * seconds)))


def audio_config_request(**options: object) -> Request:
    recognition = config_pb2.RecognitionConfig(modality=config_pb2.MODALITY_AUDIO_ONLY)
    return Request(config=config_pb2.StreamingConfig(recognition=recognition, **options))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- heartbeats


def test_heartbeats_keep_a_stream_open_and_are_answered(short_timeout_server: RunningServer) -> None:
    def send_with_pauses() -> Iterator[Request]:
        config = audio_config_request()
        config.config.heartbeat_interval.FromMilliseconds(200)
        yield config
        for _ in range(4):
            time.sleep(0.3)
            yield HEARTBEAT
        yield silent_audio_request()
        for _ in range(8):
            time.sleep(0.3)
            yield HEARTBEAT
        yield silent_audio_request()

    with grpc.insecure_channel(short_timeout_server.address) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        responses = list(stub.StreamingRecognize(send_with_pauses(), timeout=30))
    kinds = [response.WhichOneof("event") for response in responses]
    assert responses[0].started.heartbeat_interval.ToMilliseconds() == 200
    assert kinds[1:3] == ["heartbeat"] * 2, "heartbeats are also answered before any media"
    assert kinds.count("heartbeat") >= 6
    assert kinds[-1] == "finished"
    assert responses[-1].finished.media_duration.ToMilliseconds() == 2000


def test_heartbeats_without_media_reach_the_media_timeout(short_timeout_server: RunningServer) -> None:
    def send_with_pauses() -> Iterator[Request]:
        yield audio_config_request()
        yield silent_audio_request()
        while True:
            time.sleep(0.3)
            yield HEARTBEAT

    with grpc.insecure_channel(short_timeout_server.address) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        start_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.StreamingRecognize(send_with_pauses(), timeout=30))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no media for 4 s" in caught.value.details()
    assert 3 < time.monotonic() - start_s < 15


@pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])
def test_a_source_may_pause_longer_than_the_idle_timeout(
    short_timeout_server: RunningServer, is_async: bool
) -> None:
    def paused_source() -> Iterator[AudioChunk]:
        yield AudioChunk(SILENCE)
        time.sleep(1.5)  # longer than idle_timeout_s
        yield AudioChunk(SILENCE)

    async def get_duration_s() -> float:
        async def paused_source_async() -> AsyncIterator[AudioChunk]:
            yield AudioChunk(SILENCE)
            await asyncio.sleep(1.5)
            yield AudioChunk(SILENCE)

        async with AsyncClient(short_timeout_server.address, heartbeat_interval_s=0.3) as client:
            return (await client.transcribe(paused_source_async(), modality="audio").transcript()).duration_s

    if is_async:
        assert asyncio.run(get_duration_s()) == 2.0
        return
    with Client(short_timeout_server.address, heartbeat_interval_s=0.3) as client:
        assert client.transcribe(paused_source(), modality="audio").transcript().duration_s == 2.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heartbeat_interval": 0.01}, "heartbeat_interval is 0.01 s"),
        ({"heartbeat_interval": 61.0}, "heartbeat_interval is 61 s"),
        ({"silence_timeout": 0.5}, "silence_timeout is 0.5 s"),
        ({"silence_timeout": 4000.0}, "silence_timeout is 4000 s"),
    ],
)
def test_intervals_outside_the_limits_are_refused(stub, options: dict[str, float], words: str) -> None:
    request = audio_config_request()
    for name, seconds in options.items():
        getattr(request.config, name).FromMilliseconds(round(1000 * seconds))
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(iter([request, silent_audio_request()]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


# ------------------------------------------------------------------------------------------------------- live results


def assert_stable_text_is_kept(segments: list[Segment]) -> None:
    """Assert that revisions increase and keep the stable text of their predecessor."""
    stable: dict[str, list[str]] = {}
    revisions: dict[str, int] = {}
    for segment in segments:
        words = segment.text.split()
        before = stable.get(segment.segment_id, [])
        assert words[: len(before)] == before, segment
        assert segment.revision > revisions.get(segment.segment_id, 0)
        stable[segment.segment_id] = segment.stable_text.split()
        revisions[segment.segment_id] = segment.revision


def test_interim_results_keep_their_stable_words_and_become_final(server: RunningServer) -> None:
    stable_words_arrived = threading.Event()

    def paced_chunks() -> Iterator[Any]:
        """Send in real time until interim results have stable words: a busy machine skips interim results."""
        for chunk in create_chunks(DEMO):
            stable_words_arrived.wait(chunk_s / 2)  # audio and crops alternate
            yield chunk

    chunk_s = 0.2
    segments = []
    with Client(server.address) as client:
        reference = client.transcribe(create_chunks(DEMO)).transcript()
        for segment in client.transcribe(paced_chunks(), interim_results=True, live=True):
            segments.append(segment)
            if segment.stable_words and not segment.is_final:
                stable_words_arrived.set()
    assert_stable_text_is_kept(segments)
    assert any(segment.stable_words for segment in segments if not segment.is_final)
    finals = [segment for segment in segments if segment.is_final]
    assert [segment.text for segment in finals] == [segment.text for segment in reference.segments]
    assert {segment.segment_id for segment in segments} == {segment.segment_id for segment in finals}


def test_a_stream_ends_after_its_silence_timeout(server: RunningServer) -> None:
    def endless_silence() -> Iterator[AudioChunk]:
        while True:
            yield AudioChunk(SILENCE)

    warnings: list[StreamWarning] = []

    def collect_warning(event: object) -> None:
        if isinstance(event, StreamWarning):
            warnings.append(event)

    with Client(server.address) as client:
        stream = client.transcribe(
            endless_silence(), modality="audio", silence_timeout_s=5, on_event=collect_warning
        )
        assert 5 <= stream.transcript().duration_s < 10
    assert "silence_timeout" in [warning.kind for warning in warnings]


def test_input_that_lags_causes_one_warning_until_it_catches_up() -> None:
    monitor = _BackpressureMonitor()
    reported = []
    for blocked_s, waited_s in [(0.1, 0.2), (1.5, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 4.0), (2.5, 0.0)]:
        monitor.record(blocked_s, waited_s)
        reported.append(monitor.should_warn)
    assert reported == [False, False, True, False, False, True]
    assert CLEAR_LAG_S < WARN_LAG_S
    assert monitor.create_warning().kind is WarningKind.INPUT_TOO_FAST


def test_live_media_faster_than_processing_causes_a_warning(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip is sent at once. The lag depends on the speed of the machine, so the thresholds are lowered."""
    monkeypatch.setattr(media_receiver, "WARN_LAG_S", 0.1)
    monkeypatch.setattr(media_receiver, "CLEAR_LAG_S", 0.05)
    content = clips.DEMO.read_bytes()
    with Client(server.address) as client:
        stream = client.transcribe(
            iter([content[i : i + 8192] for i in range(0, len(content), 8192)]), live=True
        )
        transcript = stream.transcript()
    assert "input_too_fast" in [warning.kind for warning in transcript.warnings]
    assert len(transcript.segments) >= 3
