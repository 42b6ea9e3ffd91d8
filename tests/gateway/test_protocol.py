"""Messages of the live protocol, and the event log of a session."""

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gorggle
from gorggle_gateway import protocol
from gorggle_gateway.event_log import MAX_UNSENT, EventLog
from gorggle_gateway.protocol import (
    MediaChunk,
    Ping,
    Resume,
    SessionError,
    Start,
    Stop,
    parse_binary,
    parse_text,
)


def test_client_messages_are_parsed() -> None:
    assert parse_text('{"type":"start","media":"webm"}') == Start("webm", "av", True, False, "", "")
    assert parse_text('{"type":"resume","session":"a","key":"b","last_event":3}') == Resume("a", "b", 3, "")
    assert parse_text('{"type":"ping"}') == Ping(0)
    assert parse_text('{"type":"stop"}') == Stop()
    assert parse_binary(b"\x00\x00\x01\x02media") == MediaChunk(258, b"media")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ("[" * 10_000, "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"type":"begin"}', "expected tags: 'start', 'resume'"),
        ('{"type":["start"]}', "expected tags: 'start', 'resume'"),
        ('{"type":"start"}', "start.media"),
        ('{"type":"start","media":"mp4"}', "start.media: .*webm.*pcm"),
        ('{"type":"start","media":"webm","modality":"smell"}', "start.modality: .*av.*video.*audio"),
        ('{"type":"start","media":"webm","interim":1}', "start.interim: .*boolean"),
        ('{"type":"start","media":"webm","beam":5}', "start.beam: Unexpected"),
        ('{"type":"ping","last_event":-1}', "ping.last_event: Input should be"),
        ('{"type":"ping","last_event":true}', "ping.last_event: Input should be"),
        (json.dumps({"type": "start", "media": "webm", "token": "x" * 20_000}), "characters"),
    ],
)
def test_invalid_text_messages_are_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        parse_text(text)


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x01", b"\x00\x00\x00\x00media"])
def test_chunks_without_a_sequence_number_or_media_are_refused(data: bytes) -> None:
    with pytest.raises(SessionError):
        parse_binary(data)


@given(
    st.text(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "media", "start", "token"]), inner, max_size=4)
        ),
    ).map(json.dumps)
)
def test_arbitrary_text_is_parsed_or_raises_session_error(text: str) -> None:
    with contextlib.suppress(SessionError):
        parse_text(text)


def test_sdk_errors_have_a_code_and_internal_errors_hide_details() -> None:
    error = gorggle.ServerError("at 0x7f: secret", request_id="r-1")
    assert protocol.error_to_message(error) == {
        "type": "error",
        "code": "internal",
        "message": "internal error (request r-1)",
        "retry_after_s": None,
    }
    overloaded = gorggle.OverloadedError("all slots are in use", retry_after_s=2.0)
    assert protocol.error_to_message(overloaded)["retry_after_s"] == 2.0
    assert protocol.error_to_message(gorggle.NoFaceError("no face"))["code"] == "no_face"
    assert protocol.error_to_message(gorggle.AuthenticationError("bad token at host"))["code"] == "internal"


def segment(name: str, revision: int = 1) -> dict:
    return {"type": "segment", "segment_id": name, "revision": revision}


async def next_batch(events: EventLog) -> list[dict] | None:
    return await events.next_batch(0.01)


async def _a_slow_client_only_gets_the_latest_revisions() -> None:
    events = EventLog()
    for revision in range(1, 50):
        events.add(segment("1", revision))
        events.add({"type": "progress", "received_s": revision})
    events.add(segment("2"))
    batch = await next_batch(events)
    assert [(event["type"], event.get("revision"), event["event"]) for event in batch or []] == [
        ("segment", 49, 97),
        ("progress", None, 98),
        ("segment", 1, 99),
    ]


async def _unacknowledged_events_are_sent_again() -> None:
    events = EventLog()
    for name in "123":
        events.add(segment(name))
    assert len(await next_batch(events) or []) == 3
    assert await next_batch(events) == []
    events.rewind(1)
    assert [event["segment_id"] for event in await next_batch(events) or []] == ["2", "3"]
    events.acknowledge(3)
    events.rewind(0)
    assert await next_batch(events) == []
    events.close()
    assert await next_batch(events) is None


async def _too_many_unread_events_end_the_session() -> None:
    events = EventLog()
    for number in range(MAX_UNSENT):
        events.add(segment(str(number)))
    with pytest.raises(SessionError, match="events are unread"):
        events.add(segment("one more"))


@pytest.mark.parametrize(
    "check",
    [
        _a_slow_client_only_gets_the_latest_revisions,
        _unacknowledged_events_are_sent_again,
        _too_many_unread_events_end_the_session,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_event_log(check) -> None:
    asyncio.run(check())
