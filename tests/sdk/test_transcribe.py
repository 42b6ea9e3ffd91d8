"""Successful calls of both clients: requests, results and reported events."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

import gorggle
from gorggle import Activity, AsyncClient, Client, Finished, MediaInfo, Progress, Started, StreamWarning
from gorggle._protobuf.encode import RecognitionOptions, StreamOptions
from gorggle._transport.channel import ConnectionOptions
from gorggle.sources import SourceOptions
from gorggle.v1 import config_pb2, lip_reading_pb2
from tests.sdk import fake_service
from tests.sdk.conftest import AsyncAdapter, ClientAdapter, SyncAdapter
from tests.sdk.fake_service import FakeLipReading

CONTENT = bytes(range(256)) * 700


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    return path


def test_all_fields_of_a_segment_are_decoded(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        response = fake_service.segment("bin blue")
        response.segment.alternatives.add(text="bin glue", confidence=0.25)
        response.segment.alternatives[0].words.add(text="bin", start_offset=Duration(nanos=520_000_000))
        response.segment.face_boxes.add(
            offset=Duration(seconds=1), left=0.25, top=0.125, width=0.5, height=0.375
        )
        yield response
        yield fake_service.finished()

    service.script = script
    [found] = adapter.transcribe(target, CONTENT)
    assert (found.start_s, found.end_s, found.text) == (0.52, 2.1, "bin blue")
    assert (found.confidence, found.stability, found.is_final) == (0.875, 1.0, True)
    assert (found.segment_id, found.revision, found.speaker, found.modality) == ("1", 1, "face-1", "av")
    assert found.words == (gorggle.Word("bin", 0.52, 1.31, 0.75), gorggle.Word("blue", 1.31, 2.1, 0.75))
    assert found.alternatives == (
        gorggle.Alternative("bin glue", 0.25, (gorggle.Word("bin", 0.52, 0.0, 0.0),)),
    )
    assert found.face_boxes == (gorggle.FaceBox(1.0, 0.25, 0.125, 0.5, 0.375),)


def test_every_option_is_sent(adapter: ClientAdapter, service: FakeLipReading, target: str) -> None:
    adapter.transcribe(
        target,
        CONTENT,
        modality="video",
        model="large",
        interim_results=True,
        word_timestamps=False,
        max_alternatives=3,
        max_speakers=2,
        beam_size=20,
        length_penalty=-0.5,
        start_offset_s=3600.25,
        face_boxes=True,
        activity_events=True,
        live=True,
        silence_timeout_s=20,
        language_codes=["en-GB", "auto"],
        phrase_hints=["bin blue"],
        automatic_punctuation=True,
        settings={"heartbeat_interval_s": 2},
    )
    assert service.config == config_pb2.StreamingConfig(
        recognition=config_pb2.RecognitionConfig(
            model="large",
            modality=config_pb2.MODALITY_VIDEO_ONLY,
            enable_word_time_offsets=False,
            max_alternatives=3,
            max_speakers=2,
            beam_size=20,
            length_penalty=-0.5,
            start_offset=Duration(seconds=3600, nanos=250_000_000),
            enable_face_boxes=True,
            language_codes=["en-GB", "auto"],
            adaptation=config_pb2.SpeechAdaptation(
                phrases=[config_pb2.SpeechAdaptation.Phrase(value="bin blue")]
            ),
            enable_automatic_punctuation=True,
        ),
        interim_results=True,
        enable_speech_activity_events=True,
        live=True,
        silence_timeout=Duration(seconds=20),
        heartbeat_interval=Duration(seconds=2),
    )


def test_defaults_request_word_timestamps_and_heartbeats_only(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    adapter.transcribe(target, CONTENT)
    assert service.config == config_pb2.StreamingConfig(
        recognition=config_pb2.RecognitionConfig(
            modality=config_pb2.MODALITY_AUDIO_VISUAL, enable_word_time_offsets=True, start_offset=Duration()
        ),
        heartbeat_interval=Duration(seconds=10),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "lips"}, "av, video, audio"),
        ({"max_alternatives": 11}, "0 to 10"),
        ({"max_alternatives": -1}, "0 to 10"),
        ({"beam_size": 2.5}, "whole number"),
        ({"max_speakers": True}, "whole number"),
        ({"length_penalty": float("nan")}, "finite"),
        ({"start_offset_s": -1.0}, "0 or more"),
        ({"chunk_bytes": 0}, "chunk_bytes is 0"),
        ({"chunk_bytes": 2**30}, "16777216"),
        ({"input_format": "mouth_crops"}, "arrays"),
        ({"frame_rate_hz": 25}, "arrays"),
        ({"language_codes": "en"}, "list of strings"),
        ({"audio_sample_rate_hz": 96}, "8000 to 192000"),
        ({"input_format": "crops"}, "mouth_crops"),
        ({"audio": b"\0\0"}, "arrays"),
    ],
)
def test_invalid_options_are_refused_before_a_call(
    adapter: ClientAdapter, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=message):
        adapter.transcribe("127.0.0.1:1", CONTENT, **options)


# ----------------------------------------------------------------------------------------------------------- sources


def split_chunks(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def split_chunks_async(content: bytes, size: int) -> AsyncIterator[bytes]:
    for chunk in split_chunks(content, size):
        await asyncio.sleep(0)
        yield chunk


class AsyncFile:
    """An asynchronous file object with the interface of aiofiles."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    async def read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(size)


@pytest.mark.parametrize(
    "source",
    [
        "path",
        "Path",
        "file",
        "buffered file",
        lambda: io.BytesIO(CONTENT),
        lambda: CONTENT,
        lambda: bytearray(CONTENT),
        lambda: memoryview(CONTENT)[::1],
        lambda: split_chunks(CONTENT, 1000),
        lambda: [CONTENT],
        lambda: [b"", CONTENT[:1], bytearray(CONTENT[1:9]), memoryview(CONTENT)[9:], b""],
    ],
)
def test_any_source_is_sent_unchanged(
    adapter: ClientAdapter, service: FakeLipReading, target: str, clip: Path, source: Any
) -> None:
    match source:
        case "path":
            found = adapter.transcribe(target, str(clip))
        case "Path":
            found = adapter.transcribe(target, clip)
        case "file" | "buffered file":
            with clip.open("rb", buffering=0 if source == "file" else -1) as file:
                found = adapter.transcribe(target, file)
                assert not file.closed, "a file that the caller opened must stay open"
        case make_source:
            found = adapter.transcribe(target, make_source())
    assert [segment.text for segment in found] == ["bin blue at f two now"]
    assert service.media == CONTENT


@pytest.mark.parametrize("source", [lambda: split_chunks_async(CONTENT, 999), lambda: AsyncFile(CONTENT)])
def test_an_asynchronous_source_is_sent_unchanged(service: FakeLipReading, target: str, source: Any) -> None:
    assert len(AsyncAdapter().transcribe(target, source())) == 1
    assert service.media == CONTENT


def test_an_asynchronous_source_is_refused_by_the_synchronous_client(target: str) -> None:
    with pytest.raises(gorggle.InvalidSourceError, match="AsyncClient"):
        SyncAdapter().transcribe(target, split_chunks_async(CONTENT, 999))


@pytest.mark.parametrize("chunk_bytes", [64, 1000, 65536, 2**20])
def test_media_is_split_into_chunks_of_chunk_bytes(
    adapter: ClientAdapter, service: FakeLipReading, target: str, clip: Path, chunk_bytes: int
) -> None:
    adapter.transcribe(target, clip, chunk_bytes=chunk_bytes)
    sizes = [len(request.media) for request in service.requests]
    assert sum(sizes) == len(CONTENT)
    assert set(sizes[:-1]) <= {chunk_bytes}
    assert 0 < sizes[-1] <= chunk_bytes


def test_a_file_is_read_from_its_current_position(service: FakeLipReading, target: str, clip: Path) -> None:
    with clip.open("rb") as file:
        file.seek(100)
        SyncAdapter().transcribe(target, file)
    assert service.media == CONTENT[100:]


def test_available_bytes_of_a_pipe_are_sent_without_delay(service: FakeLipReading, target: str) -> None:
    """A live source must not wait until a chunk is full."""
    arrived = threading.Event()

    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        for request in requests:
            service.requests.append(request)
            arrived.set()
        yield fake_service.finished()

    service.script = script
    read_descriptor, write_descriptor = os.pipe()
    with os.fdopen(read_descriptor, "rb") as source, os.fdopen(write_descriptor, "wb", buffering=0) as sink:
        client_thread = threading.Thread(target=lambda: SyncAdapter().transcribe(target, source))
        client_thread.start()
        sink.write(b"first")
        assert arrived.wait(10), "nothing was sent while the pipe was open"
        sink.write(b"second")
        sink.close()
        client_thread.join(10)
    assert service.media == b"firstsecond"


def test_a_named_pipe_is_a_valid_source(service: FakeLipReading, target: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(CONTENT))
    writer.start()
    SyncAdapter().transcribe(target, pipe)
    writer.join(10)
    assert service.media == CONTENT


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "path is empty"),
        ("nowhere.mp4", "nowhere.mp4 does not exist"),
        ("a\0b", "cannot be read"),
        ("folder", "is a directory"),
        ("empty.mp4", "is empty"),
        ("s3://bucket/clip.mp4", r"recognize\(\)"),
        (b"", "no bytes"),
        (None, "no source"),
        (42, "int"),
        ("clip.mp4/x", "not a directory"),
    ],
)
def test_an_unreadable_source_is_refused_before_a_call(
    adapter: ClientAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty.mp4").touch()
    Path("clip.mp4").write_bytes(CONTENT)
    with pytest.raises(gorggle.InvalidSourceError, match=message) as caught:
        adapter.transcribe("127.0.0.1:1", source)
    assert caught.value.code is None


def test_a_file_without_permission_is_refused_before_a_call(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can read every file
    with pytest.raises(gorggle.InvalidSourceError, match="permission denied"):
        SyncAdapter().transcribe("127.0.0.1:1", clip)


@pytest.mark.parametrize(
    ("make_source", "message"),
    [
        (lambda: io.StringIO("text"), "text mode"),
        (lambda: [b"good", "bad"], "chunk 1 is a str"),
        (lambda: [1, 2], "chunk 0 is a int"),
    ],
)
def test_a_source_of_other_types_than_bytes_is_refused(
    adapter: ClientAdapter, target: str, make_source: Any, message: str
) -> None:
    with pytest.raises(gorggle.InvalidSourceError, match=message):
        adapter.transcribe(target, make_source())


# ------------------------------------------------------------------------------------------------------------ events


def event_script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
    begin, end = (
        lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_BEGIN,
        lip_reading_pb2.SpeechActivityEvent.SPEECH_ACTIVITY_END,
    )
    for _ in requests:
        pass
    yield fake_service.started("call-7", "grid")
    yield fake_service.media_info()
    yield fake_service.warning("there is no audio")
    yield fake_service.activity(begin, 0.5)
    yield fake_service.segment("bin", is_final=False)
    yield fake_service.Response()  # an event type unknown to this client
    yield fake_service.segment("bin blue")
    yield fake_service.activity(end, 2.0)
    yield fake_service.progress(2.5, 2.0, 4096)
    yield fake_service.warning("a new kind", kind=77)  # type: ignore[arg-type]
    yield fake_service.finished(3.25)


EXPECTED_EVENTS = [
    Started("call-7", "grid"),
    MediaInfo("mov,mp4", "h264", "aac", 640, 480, 30.0, 3.0, 90),
    StreamWarning("no_audio", "there is no audio"),
    Activity("speech_begin", 0.5, "face-1"),
    Activity("speech_end", 2.0, "face-1"),
    Progress(4096, 2.5, 2.0, 1),
    StreamWarning("other", "a new kind"),
    Finished(3.25, 1, 1),
]


def test_all_events_are_reported(adapter: ClientAdapter, service: FakeLipReading, target: str) -> None:
    service.script = event_script
    events: list[gorggle.Event] = []
    segments = adapter.transcribe(target, CONTENT, on_event=events.append)
    assert events == EXPECTED_EVENTS
    assert [(segment.text, segment.is_final) for segment in segments] == [("bin", False), ("bin blue", True)]


def test_the_event_callback_can_be_a_coroutine(service: FakeLipReading, target: str) -> None:
    service.script = event_script
    events: list[gorggle.Event] = []

    async def record_event(event: gorggle.Event) -> None:
        await asyncio.sleep(0)
        events.append(event)

    AsyncAdapter().transcribe(target, CONTENT, on_event=record_event)
    assert events == EXPECTED_EVENTS


def test_stream_attributes_contain_the_stream_metadata(service: FakeLipReading, target: str) -> None:
    service.script = event_script
    with Client(target) as client:
        stream = client.transcribe(CONTENT)
        assert (stream.request_id, stream.model, stream.media_info) == ("", "", None)
        transcript = stream.transcript()
    assert (stream.request_id, stream.model, stream.duration_s) == ("call-7", "grid", 3.25)
    assert stream.bytes_sent == len(CONTENT)
    assert stream.media_info == EXPECTED_EVENTS[1]
    assert transcript.text == "bin blue"
    assert [warning.kind for warning in transcript.warnings] == ["no_audio", "other"]


def test_a_transcript_contains_the_final_segments_in_order_of_time(
    adapter: ClientAdapter, service: FakeLipReading, target: str, clip: Path
) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.segment("second", start_s=1.0, speaker="face-2")
        yield fake_service.segment("fir", start_s=0.5, is_final=False)
        yield fake_service.segment("first", start_s=0.5)
        yield fake_service.finished()

    service.script = script

    async def collect() -> gorggle.Transcript:
        async with AsyncClient(target) as client:
            return await client.transcribe(clip).transcript()

    with Client(target) as client:
        transcripts = [client.transcribe(clip).transcript(), asyncio.run(collect())]
    for transcript in transcripts:
        assert (transcript.file, transcript.model, transcript.duration_s) == (str(clip), "grid", 3.0)
        assert [segment.text for segment in transcript.segments] == ["first", "second"]


def test_the_started_event_is_reported_while_media_is_still_sent(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    started = threading.Event()

    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        next(requests)
        yield fake_service.segment("early")
        for _ in requests:
            pass
        yield fake_service.progress(1, 1)
        yield fake_service.finished()

    def chunks() -> Iterator[bytes]:
        yield b"first"
        assert started.wait(10), "the call did not start before all media was sent"
        yield b"last"

    def on_event(event: gorggle.Event) -> None:
        if isinstance(event, Started):
            threading.Timer(0.2, started.set).start()

    service.script = script
    assert [segment.text for segment in adapter.transcribe(target, chunks(), on_event=on_event)] == ["early"]


# ------------------------------------------------------------------------------------------------------- other calls


def test_a_clip_is_recognized_in_one_call(
    adapter: ClientAdapter, service: FakeLipReading, target: str, clip: Path
) -> None:
    requests: list[lip_reading_pb2.RecognizeRequest] = []
    recognize = service.clip
    service.clip = lambda request, context: (requests.append(request), recognize(request, context))[1]
    transcript = adapter.call(target, "recognize", clip, modality="audio", model="large")
    assert requests[0].content == CONTENT
    assert requests[0].config.modality == config_pb2.MODALITY_AUDIO_ONLY
    assert (transcript.file, transcript.model, transcript.duration_s) == (str(clip), "large", 7.0)
    assert transcript.request_id == "call-2"
    assert [segment.text for segment in transcript.segments] == ["bin blue at f two now", "later"]
    assert transcript.warnings == (StreamWarning("no_audio", "there is no audio"),)


def test_a_clip_in_s3_is_sent_as_a_uri(adapter: ClientAdapter, service: FakeLipReading, target: str) -> None:
    requests: list[lip_reading_pb2.RecognizeRequest] = []
    recognize = service.clip
    service.clip = lambda request, context: (requests.append(request), recognize(request, context))[1]
    transcript = adapter.call(target, "recognize", "s3://bucket/clip.mp4?versionId=7")
    assert requests[0].uri == "s3://bucket/clip.mp4?versionId=7"
    assert transcript.file == "s3://bucket/clip.mp4?versionId=7"


def test_an_asynchronous_source_is_recognized_in_one_call(service: FakeLipReading, target: str) -> None:
    requests: list[lip_reading_pb2.RecognizeRequest] = []
    recognize = service.clip
    service.clip = lambda request, context: (requests.append(request), recognize(request, context))[1]
    AsyncAdapter().call(target, "recognize", split_chunks_async(CONTENT, 777))
    assert requests[0].content == CONTENT


def test_a_clip_without_bytes_is_refused(adapter: ClientAdapter, target: str) -> None:
    with pytest.raises(gorggle.InvalidSourceError, match="no bytes"):
        adapter.call(target, "recognize", iter([]))


def test_models_have_licences_and_error_rates(adapter: ClientAdapter, target: str) -> None:
    models = adapter.call(target, "models")
    assert [model.name for model in models] == ["grid", "large"]
    assert adapter.call(target, "model", "grid") == models[0]
    assert adapter.call(target, "model") == models[0]
    assert models[0].license.commercial_use == "forbidden"
    assert models[0].modalities == ("av", "video")
    assert models[0].error_rates == (
        gorggle.ErrorRate("held-out speakers", "video", "clean", 36.5, "make evaluate"),
    )


def test_an_unknown_model_is_not_found(adapter: ClientAdapter, target: str) -> None:
    with pytest.raises(gorggle.NotFoundError, match="no model whisper"):
        adapter.call(target, "model", "whisper")


def test_server_info_contains_limits_and_capacity(adapter: ClientAdapter, target: str) -> None:
    info = adapter.call(target, "server_info")
    assert (info.version, info.default_model, info.device, info.uptime_s) == ("0.1.0", "grid", "cpu", 12.5)
    assert info.limits.max_speakers == 4
    assert info.limits.idle_timeout_s == 30.0
    assert info.capacity == gorggle.ServerCapacity(max_streams=8, active_streams=1)


def test_a_client_can_be_used_from_several_threads(service: FakeLipReading, target: str) -> None:
    def script(requests: Any, context: Any) -> Iterator[fake_service.Response]:
        yield fake_service.started()
        yield fake_service.segment(b"".join(request.media for request in requests).decode())
        yield fake_service.finished()

    service.script = script
    found: dict[str, str] = {}
    with Client(target) as client:

        def transcribe(text: str) -> None:
            found[text] = next(client.transcribe(text.encode())).text

        threads = [threading.Thread(target=transcribe, args=(f"speaker {number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert found == {text: text for text in (f"speaker {number}" for number in range(4))}


def test_every_option_is_an_argument() -> None:
    arguments = inspect.signature(gorggle.Client.transcribe).parameters.keys()
    options = {field.name for kind in (StreamOptions, SourceOptions) for field in dataclasses.fields(kind)}
    assert options - arguments == {"heartbeat_interval_s"}, (
        "heartbeat_interval_s is an argument of the client"
    )
    recognize_arguments = inspect.signature(gorggle.Client.recognize).parameters.keys()
    assert {field.name for field in dataclasses.fields(RecognitionOptions)} <= recognize_arguments
    connection_options = {field.name for field in dataclasses.fields(ConnectionOptions)}
    assert connection_options <= inspect.signature(gorggle.Client).parameters.keys()
