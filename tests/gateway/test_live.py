"""``/v1/live`` with a WebSocket client and a scripted inference server."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc
import pytest

from gorggle.v1 import config_pb2
from gorggle_gateway.app import SESSIONS
from tests.gateway.conftest import TIMEOUT_S, Gateway, run, running_gateway
from tests.gateway.recordings import make_recording, pcm
from tests.sdk.fake_service import FakeLipReading, Request, Response, finished, progress, segment, started


def media(max_s: float = 3.0) -> bytes:
    return make_recording(max_s=max_s)


def test_interim_results_are_followed_by_final_ones(service: FakeLipReading, target: str) -> None:
    def script(requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started()
        service.requests += requests
        yield segment("bin blue", is_final=False)
        yield segment()
        yield finished()

    service.script = script

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session(face_boxes=True) as live:
            await live.send_all(media())
            await live.send_message({"type": "stop"})
            received = await live.receive_all()
        segments = [message for message in received if message["type"] == "segment"]
        assert [(each["text"], each["is_final"]) for each in segments][-1] == ("bin blue at f two now", True)
        assert len({each["segment_id"] for each in segments}) == 1
        assert segments[-1]["words"][0] == {
            "text": "bin",
            "start_s": 0.52,
            "end_s": 0.783,
            "confidence": 0.75,
            "source": "",
        }
        assert received[-1]["type"] == "finished"
        assert live.close_code == 1000

    run(test())
    assert media().startswith(service.media), "the server must receive complete elements in order"
    assert len(service.media) > 0.99 * len(media())
    assert service.config is not None
    assert service.config.live
    assert service.config.interim_results
    assert service.config.recognition.enable_face_boxes


def test_audio_only_sessions_are_served(service: FakeLipReading, target: str) -> None:
    samples = pcm(max_s=1.0)

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session(media="pcm", modality="audio") as live:
            await live.send_all(samples, step=3001)
            await live.send_message({"type": "stop"})
            await live.receive_all()
        assert live.final_texts() == ["bin blue at f two now"]

    run(test())
    assert b"".join(request.pcm.samples for request in service.requests) == samples
    assert service.config is not None
    assert service.config.recognition.modality == config_pb2.MODALITY_AUDIO_ONLY


class GatedScript:
    """A script that sends one segment immediately and another one when ``opened`` is set."""

    def __init__(self, service: FakeLipReading) -> None:
        self.opened = threading.Event()
        self.received_bytes = 0
        service.script = self.script

    def script(self, requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started()
        thread = threading.Thread(target=self.read_requests, args=(requests,), daemon=True)
        thread.start()
        yield segment("first words")
        self.opened.wait(30)
        yield segment("more words", start_s=5, end_s=6, segment_id="2")
        thread.join(30)
        yield finished()

    def read_requests(self, requests: Iterator[Request]) -> None:
        try:
            for request in requests:
                self.received_bytes += len(request.media)
        except grpc.RpcError:
            pass


def test_a_resumed_client_gets_every_event_exactly_once(service: FakeLipReading, target: str) -> None:
    script = GatedScript(service)
    chunks = [media()[at : at + 4096] for at in range(0, len(media()), 4096)]

    async def test() -> None:
        async with running_gateway(target) as gateway:
            async with gateway.session() as live:
                for chunk in chunks[:5]:
                    await live.send_media(chunk)
                first = await live.receive_until("segment")
                ready = live.ready
            script.opened.set()
            await asyncio.sleep(0.3)
            async with gateway.connect() as resumed_connection:
                await resumed_connection.send_message(
                    {
                        "type": "resume",
                        "session": ready["session"],
                        "key": ready["key"],
                        "last_event": first["event"],
                    }
                )
                resumed = await resumed_connection.receive_until("ready")
                assert resumed["session"] == ready["session"]
                assert resumed["received"] == 5
                # The client resends all chunks; the gateway ignores duplicates.
                for number, chunk in enumerate(chunks, 1):
                    await resumed_connection.send_media(chunk, number)
                await resumed_connection.send_message({"type": "stop"})
                await resumed_connection.receive_all()
            assert resumed_connection.final_texts() == ["more words"]

    run(test())
    assert script.received_bytes > 0.99 * len(media())
    assert script.received_bytes <= len(media())


def test_a_session_can_only_be_resumed_with_its_id_and_key(service: FakeLipReading, target: str) -> None:
    GatedScript(service).opened.set()

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live:
            for override in ({"key": "x" * 32}, {"session": "0" * 16}):
                async with gateway.connect() as attacker:
                    known = {"session": live.ready["session"], "key": live.ready["key"], **override}
                    await attacker.send_message({"type": "resume", **known})
                    received = await attacker.receive_all()
                assert [(each["type"], each["code"]) for each in received] == [("error", "unknown_session")]

    run(test())


def test_a_second_connection_supersedes_the_first(service: FakeLipReading, target: str) -> None:
    script = GatedScript(service)

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live, gateway.connect() as second:
            await second.send_message(
                {"type": "resume", "session": live.ready["session"], "key": live.ready["key"]}
            )
            await second.receive_until("ready")
            await live.receive_all()
            assert live.close_code == 4409
            script.opened.set()
            await second.send_all(media())
            await second.send_message({"type": "stop"})
            await second.receive_until("finished")

    run(test())


def test_simultaneous_connections_supersede_each_other(service: FakeLipReading, target: str) -> None:
    script = GatedScript(service)
    script.opened.set()

    async def resume_twice_at_once(gateway: Gateway) -> None:
        async with gateway.session() as live, gateway.connect() as second, gateway.connect() as third:
            resume = {"type": "resume", "session": live.ready["session"], "key": live.ready["key"]}
            await asyncio.gather(second.send_message(resume), third.send_message(resume))
            await live.receive_all()
            assert live.close_code == 4409
            # The last connection keeps the session; the other one may have been superseded before it was ready.
            pending = [asyncio.ensure_future(each.receive_all()) for each in (second, third)]
            done, _ = await asyncio.wait(pending, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            superseded, active = (second, third) if pending[0] in done else (third, second)
            assert superseded.close_code == 4409
            await active.send_message({"type": "stop"})
            await asyncio.wait_for(asyncio.gather(*pending), TIMEOUT_S)
            assert active.received[-1]["type"] == "finished"

    async def test() -> None:
        async with running_gateway(target) as gateway:
            for _ in range(15):
                await resume_twice_at_once(gateway)

    run(test())


def test_a_session_ends_if_its_client_does_not_resume_in_time(service: FakeLipReading, target: str) -> None:
    script = GatedScript(service)

    async def test() -> None:
        async with running_gateway(target, max_resume_s=0.2) as gateway:
            async with gateway.session() as live:
                await live.send_all(media())
                await live.receive_until("segment")
            assert len(gateway.app[SESSIONS]) == 1
            await wait_until(lambda: len(gateway.app[SESSIONS]) == 0)
            assert await asyncio.to_thread(service.ended.wait, 20), (
                "the slot of the inference server must be released"
            )

    run(test())
    script.opened.set()


def test_a_session_continues_after_a_server_failure_without_losing_segments(make_server: Any) -> None:
    service, port = make_server()
    lost = threading.Event()

    def failing_script(requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Response]:
        yield started()
        received_bytes = 0
        for request in requests:
            received_bytes += len(request.media)
            if received_bytes > len(media(6.0)) * 0.8:
                break
        yield segment("bin blue", start_s=0.4, end_s=1.6)
        yield progress(received_s=5.0, processed_s=2.6)
        yield segment("lost", start_s=4.0, end_s=4.4, is_final=False, segment_id="2")
        time.sleep(0.2)
        service.script = recovered_script
        lost.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def recovered_script(requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started("call-2")
        service.requests += requests
        yield segment("bin blue", start_s=1.9, end_s=2.5)  # transcribed again, from the key frame
        yield segment("at f two", start_s=4.0, end_s=5.0, segment_id="2")
        yield finished(4.0)

    service.script = failing_script

    async def test() -> None:
        async with running_gateway(f"127.0.0.1:{port}") as gateway, gateway.session() as live:
            await live.send_all(media(6.0))
            await live.send_message({"type": "stop"})
            received = await live.receive_all()
        kinds = [each["type"] for each in received]
        assert kinds.index("recovering") < kinds.index("recovered") < kinds.index("finished")
        assert live.final_texts() == ["bin blue", "at f two"]
        assert service.config is not None
        offset_s = service.config.recognition.start_offset.ToMilliseconds() / 1000
        assert 0.9 < offset_s < 2.6, "the replay must start at a key frame before the last final segment"
        assert received[-1]["duration_s"] == pytest.approx(4.0 + offset_s, abs=0.01)

    run(test())
    assert service.media.startswith(b"\x1a\x45\xdf\xa3"), (
        "the replayed recording must start with an EBML header"
    )
    assert len(service.media) < 0.9 * len(media(6.0))


def test_an_unreachable_server_ends_the_session_with_the_reason(target: str, server: Any) -> None:
    async def test() -> None:
        async with running_gateway("127.0.0.1:9", max_recover_s=0.5) as gateway, gateway.session() as live:
            await live.send_all(media(1.0))
            received = await live.receive_all()
        assert received[-1]["type"] == "error"
        assert received[-1]["code"] == "unavailable"

    run(test())


def test_a_slow_server_applies_back_pressure_to_the_client(service: FakeLipReading, target: str) -> None:
    opened = threading.Event()

    def stalled_script(requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started()
        opened.wait(30)
        service.requests += requests
        yield finished()

    service.script = stalled_script
    block = b"\x00" * 65_536

    async def test() -> None:
        limits = {"max_waiting_bytes": 256 * 1024}
        async with running_gateway(target, **limits) as gateway, gateway.session(media="pcm") as live:

            async def send() -> None:
                for _ in range(1000):
                    await live.send_media(block)

            send_task = asyncio.create_task(send())
            sent_before = -1
            async with asyncio.timeout(TIMEOUT_S):
                while live.sequence != sent_before:
                    sent_before = live.sequence
                    await asyncio.sleep(0.3)
            assert not send_task.done(), "64 MB were accepted although the server does not read requests"
            # The gateway sends heartbeats while it is not reading.
            await live.receive_until("pong")
            send_task.cancel()
            opened.set()

    run(test())


async def wait_until(condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition was not met in time")


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "messages", "code"),
    [
        ({"max_start_s": 0.2}, [], "protocol"),
        ({}, ["hello"], "protocol"),
        ({}, [{"type": "stop"}], "protocol"),
        ({}, [b"\x00\x00\x00\x01media"], "protocol"),
        ({}, [{"type": "start", "media": "avi"}], "protocol"),
        ({}, [{"type": "start", "media": "webm"}, {"type": "start", "media": "webm"}], "protocol"),
        ({}, [{"type": "start", "media": "webm"}, b"\x00\x00\x00\x02media"], "out_of_order"),
        ({}, [{"type": "start", "media": "webm"}, b"\x00\x00\x00\x01<html>"], "invalid_media"),
        (
            {"max_session_bytes": 100},
            [{"type": "start", "media": "pcm"}, b"\x00\x00\x00\x01" + b"x" * 200],
            "too_long",
        ),
        ({"max_idle_s": 0.3}, [{"type": "start", "media": "pcm"}], "idle"),
        (
            {"max_session_s": 0.3},
            [{"type": "start", "media": "pcm"}, b"\x00\x00\x00\x01" + b"x" * 200],
            "too_long",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, list) else None,
)
def test_invalid_or_excessive_input_is_refused_with_a_code(
    target: str, limits: dict[str, Any], messages: list[Any], code: str
) -> None:
    async def test() -> None:
        async with running_gateway(target, **limits) as gateway, gateway.connect() as live:
            for message in messages:
                if isinstance(message, dict):
                    await live.send_message(message)
                elif isinstance(message, bytes):
                    await live.socket.send_bytes(message)
                else:
                    await live.socket.send_str(message)
            received = await live.receive_all()
        assert received[-1]["type"] == "error", received
        assert received[-1]["code"] == code
        assert received[-1]["message"]

    run(test())


def test_an_oversized_message_ends_the_connection(target: str) -> None:
    async def test() -> None:
        async with (
            running_gateway(target, max_message_bytes=1000) as gateway,
            gateway.session() as live,
        ):
            await live.send_media(b"x" * 5000)
            await live.receive_all()
            assert live.close_code == 1009

    run(test())


def test_sessions_are_limited_per_client(target: str) -> None:
    async def test() -> None:
        limits = {"max_connections": 3, "max_connections_per_client": 2}
        async with running_gateway(target, **limits) as gateway, gateway.session(), gateway.session():
            async with gateway.connect() as third:
                await third.send_message({"type": "start", "media": "webm"})
                received = await third.receive_all()
            assert received[-1]["code"] == "overloaded"

    run(test())


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (None, True),
        ("self", True),
        ("https://captions.example.org", True),
        ("https://evil.example.org", False),
        ("null", False),
        ("https://captions.example.org.evil.org", False),
    ],
)
def test_only_allowed_origins_may_connect(target: str, origin: str | None, is_allowed: bool) -> None:
    async def test() -> None:
        async with running_gateway(target, origins=("https://captions.example.org",)) as gateway:
            origin_header = gateway.url if origin == "self" else origin
            headers = {} if origin_header is None else {"origin": origin_header}
            if not is_allowed:
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    async with gateway.connect(headers):
                        pass
                return
            async with gateway.connect(headers) as live:
                await live.send_message({"type": "start", "media": "webm"})
                await live.receive_until("ready")

    run(test())


def test_a_session_requires_a_valid_token(target: str, tmp_path: Any) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"camera-1 {hashlib.sha256(b'right').hexdigest()}\n")

    async def test() -> None:
        async with running_gateway(target, token_file=str(tokens)) as gateway:
            for token in ("", "wrong"):
                async with gateway.connect() as live:
                    await live.send_message({"type": "start", "media": "webm", "token": token})
                    assert (await live.receive_all())[-1]["code"] == "unauthorized"
            async with gateway.session(token="right"):
                pass
            async with gateway.connect({"authorization": "Bearer right"}) as live:
                await live.send_message({"type": "start", "media": "webm"})
                await live.receive_until("ready")
            async with gateway.client.get(f"{gateway.url}/config.json") as response:
                assert (await response.json())["auth"] == "token"

    run(test())


def test_a_ping_with_an_acknowledgement_is_answered(service: FakeLipReading, target: str) -> None:
    script = GatedScript(service)

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live:
            await live.send_all(media(1.0))
            last = await live.receive_until("segment")
            await live.send_message({"type": "ping", "last_event": last["event"]})
            await live.receive_until("pong")

    run(test())
    script.opened.set()
