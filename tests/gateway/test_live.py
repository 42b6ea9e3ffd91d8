"""``/v1/live`` with a real WebSocket client and a scripted inference server."""

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
from tests.gateway.recordings import pcm, recording
from tests.sdk.fake_service import FakeLipReading, Request, Response, finished, progress, segment, started


def media(max_s: float = 3.0) -> bytes:
    return recording(max_s=max_s)


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
            await live.say({"type": "stop"})
            heard = await live.rest()
        segments = [message for message in heard if message["type"] == "segment"]
        assert [(each["text"], each["is_final"]) for each in segments][-1] == ("bin blue at f two now", True)
        assert len({each["segment_id"] for each in segments}) == 1
        assert segments[-1]["words"][0] == {
            "text": "bin",
            "start_s": 0.52,
            "end_s": 0.783,
            "confidence": 0.75,
        }
        assert heard[-1]["type"] == "finished"
        assert live.closed_with == 1000

    run(test())
    assert media().startswith(service.media), "whole elements, in order"
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
            await live.say({"type": "stop"})
            await live.rest()
        assert live.texts() == ["bin blue at f two now"]

    run(test())
    assert b"".join(request.pcm.samples for request in service.requests) == samples
    assert service.config is not None
    assert service.config.recognition.modality == config_pb2.MODALITY_AUDIO_ONLY


class Gate:
    """A script that sends a segment, waits, and sends another when the test opens the gate."""

    def __init__(self, service: FakeLipReading) -> None:
        self.opened = threading.Event()
        self.taken = 0
        service.script = self.script

    def script(self, requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started()
        thread = threading.Thread(target=self.take, args=(requests,), daemon=True)
        thread.start()
        yield segment("first words")
        self.opened.wait(30)
        yield segment("more words", start_s=5, end_s=6, segment_id="2")
        thread.join(30)
        yield finished()

    def take(self, requests: Iterator[Request]) -> None:
        try:
            for request in requests:
                self.taken += len(request.media)
        except grpc.RpcError:
            pass


def test_a_resumed_client_gets_every_event_exactly_once(service: FakeLipReading, target: str) -> None:
    gate = Gate(service)
    pieces = [media()[at : at + 4096] for at in range(0, len(media()), 4096)]

    async def test() -> None:
        async with running_gateway(target) as gateway:
            async with gateway.session() as live:
                for piece in pieces[:5]:
                    await live.send(piece)
                first = await live.until("segment")
                ready = live.ready
            gate.opened.set()
            await asyncio.sleep(0.3)
            async with gateway.connect() as again:
                await again.say(
                    {
                        "type": "resume",
                        "session": ready["session"],
                        "key": ready["key"],
                        "last_event": first["event"],
                    }
                )
                resumed = await again.until("ready")
                assert resumed["session"] == ready["session"]
                assert resumed["received"] == 5
                # The client resends everything; the gateway ignores duplicates.
                for number, piece in enumerate(pieces, 1):
                    await again.send(piece, number)
                await again.say({"type": "stop"})
                await again.rest()
            assert again.texts() == ["more words"]

    run(test())
    assert gate.taken > 0.99 * len(media())
    assert gate.taken <= len(media())


def test_a_session_needs_its_key(service: FakeLipReading, target: str) -> None:
    Gate(service).opened.set()

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live:
            for wrong in ({"key": "x" * 32}, {"session": "0" * 16}):
                async with gateway.connect() as thief:
                    known = {"session": live.ready["session"], "key": live.ready["key"], **wrong}
                    await thief.say({"type": "resume", **known})
                    heard = await thief.rest()
                assert [(each["type"], each["code"]) for each in heard] == [("error", "unknown_session")]

    run(test())


def test_a_second_connection_supersedes_the_first(service: FakeLipReading, target: str) -> None:
    gate = Gate(service)

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live, gateway.connect() as other:
            await other.say({"type": "resume", "session": live.ready["session"], "key": live.ready["key"]})
            await other.until("ready")
            await live.rest()
            assert live.closed_with == 4409
            gate.opened.set()
            await other.send_all(media())
            await other.say({"type": "stop"})
            await other.until("finished")

    run(test())


def test_simultaneous_connections_supersede_each_other(service: FakeLipReading, target: str) -> None:
    gate = Gate(service)
    gate.opened.set()

    async def taken_over_twice(gateway: Gateway) -> None:
        async with gateway.session() as live, gateway.connect() as second, gateway.connect() as third:
            resume = {"type": "resume", "session": live.ready["session"], "key": live.ready["key"]}
            await asyncio.gather(second.say(resume), third.say(resume))
            await live.rest()
            assert live.closed_with == 4409
            # The last connection has the session; the other may have been superseded before it was ready.
            rest = [asyncio.ensure_future(each.rest()) for each in (second, third)]
            done, _ = await asyncio.wait(rest, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            loser, winner = (second, third) if rest[0] in done else (third, second)
            assert loser.closed_with == 4409
            await winner.say({"type": "stop"})
            await asyncio.wait_for(asyncio.gather(*rest), TIMEOUT_S)
            assert winner.heard[-1]["type"] == "finished"

    async def test() -> None:
        async with running_gateway(target) as gateway:
            for _ in range(15):
                await taken_over_twice(gateway)

    run(test())


def test_a_session_ends_if_its_client_does_not_return(service: FakeLipReading, target: str) -> None:
    gate = Gate(service)

    async def test() -> None:
        async with running_gateway(target, max_resume_s=0.2) as gateway:
            async with gateway.session() as live:
                await live.send_all(media())
                await live.until("segment")
            assert len(gateway.app[SESSIONS]) == 1
            await until(lambda: len(gateway.app[SESSIONS]) == 0)
            assert await asyncio.to_thread(service.ended.wait, 20), (
                "the inference server's slot is free again"
            )

    run(test())
    gate.opened.set()


def test_a_lost_server_is_replaced_and_nothing_is_lost(make_server: Any) -> None:
    service, port = make_server()
    lost = threading.Event()

    def dying(requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Response]:
        yield started()
        taken = 0
        for request in requests:
            taken += len(request.media)
            if taken > len(media(6.0)) * 0.8:
                break
        yield segment("bin blue", start_s=0.4, end_s=1.6)
        yield progress(received_s=5.0, processed_s=2.6)
        yield segment("lost", start_s=4.0, end_s=4.4, is_final=False, segment_id="2")
        time.sleep(0.2)
        service.script = living
        lost.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def living(requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started("call-2")
        service.requests += requests
        yield segment("bin blue", start_s=1.9, end_s=2.5)  # transcribed again, from the key frame
        yield segment("at f two", start_s=4.0, end_s=5.0, segment_id="2")
        yield finished(4.0)

    service.script = dying

    async def test() -> None:
        async with running_gateway(f"127.0.0.1:{port}") as gateway, gateway.session() as live:
            await live.send_all(media(6.0))
            await live.say({"type": "stop"})
            heard = await live.rest()
        kinds = [each["type"] for each in heard]
        assert kinds.index("recovering") < kinds.index("recovered") < kinds.index("finished")
        assert live.texts() == ["bin blue", "at f two"]
        assert service.config is not None
        offset_s = service.config.recognition.start_offset.ToMilliseconds() / 1000
        assert 0.9 < offset_s < 2.6, "from a key frame before what was final"
        assert heard[-1]["duration_s"] == pytest.approx(4.0 + offset_s, abs=0.01)

    run(test())
    assert service.media.startswith(b"\x1a\x45\xdf\xa3"), "a complete recording that starts at a key frame"
    assert len(service.media) < 0.9 * len(media(6.0))


def test_an_unreachable_server_ends_the_session_with_the_reason(target: str, server: Any) -> None:
    async def test() -> None:
        async with running_gateway("127.0.0.1:9", max_recover_s=0.5) as gateway, gateway.session() as live:
            await live.send_all(media(1.0))
            heard = await live.rest()
        assert heard[-1]["type"] == "error"
        assert heard[-1]["code"] == "unavailable"

    run(test())


def test_a_slow_server_applies_back_pressure_to_the_client(service: FakeLipReading, target: str) -> None:
    opened = threading.Event()

    def stalled(requests: Iterator[Request], _context: Any) -> Iterator[Response]:
        yield started()
        opened.wait(30)
        service.requests += requests
        yield finished()

    service.script = stalled
    block = b"\x00" * 65_536

    async def test() -> None:
        limits = {"max_waiting_bytes": 256 * 1024}
        async with running_gateway(target, **limits) as gateway, gateway.session(media="pcm") as live:

            async def send() -> None:
                for _ in range(1000):
                    await live.send(block)

            sending = asyncio.create_task(send())
            sent_before = -1
            async with asyncio.timeout(TIMEOUT_S):
                while live.sequence != sent_before:
                    sent_before = live.sequence
                    await asyncio.sleep(0.3)
            assert not sending.done(), "64 MB were accepted although the server does not read"
            # The gateway sends heartbeats although it does not read.
            assert await live.until("pong") or True
            sending.cancel()
            opened.set()

    run(test())


async def until(is_so: Any) -> None:
    for _ in range(300):
        if is_so():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition was not met in time")


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "say", "code"),
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
    target: str, limits: dict[str, Any], say: list[Any], code: str
) -> None:
    async def test() -> None:
        async with running_gateway(target, **limits) as gateway, gateway.connect() as live:
            for message in say:
                if isinstance(message, dict):
                    await live.say(message)
                elif isinstance(message, bytes):
                    await live.socket.send_bytes(message)
                else:
                    await live.socket.send_str(message)
            heard = await live.rest()
        assert heard[-1]["type"] == "error", heard
        assert heard[-1]["code"] == code
        assert heard[-1]["message"]

    run(test())


def test_an_oversized_message_ends_the_connection(target: str) -> None:
    async def test() -> None:
        async with (
            running_gateway(target, max_message_bytes=1000) as gateway,
            gateway.session() as live,
        ):
            await live.send(b"x" * 5000)
            await live.rest()
            assert live.closed_with == 1009

    run(test())


def test_sessions_are_limited_per_client(target: str) -> None:
    async def test() -> None:
        limits = {"max_connections": 3, "max_connections_per_client": 2}
        async with running_gateway(target, **limits) as gateway, gateway.session(), gateway.session():
            async with gateway.connect() as third:
                await third.say({"type": "start", "media": "webm"})
                heard = await third.rest()
            assert heard[-1]["code"] == "overloaded"

    run(test())


@pytest.mark.parametrize(
    ("origin", "is_served"),
    [
        (None, True),
        ("self", True),
        ("https://captions.example.org", True),
        ("https://evil.example.org", False),
        ("null", False),
        ("https://captions.example.org.evil.org", False),
    ],
)
def test_only_allowed_origins_may_connect(target: str, origin: str | None, is_served: bool) -> None:
    async def test() -> None:
        async with running_gateway(target, origins=("https://captions.example.org",)) as gateway:
            shown = gateway.url if origin == "self" else origin
            headers = {} if shown is None else {"origin": shown}
            if not is_served:
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    async with gateway.connect(headers):
                        pass
                return
            async with gateway.connect(headers) as live:
                await live.say({"type": "start", "media": "webm"})
                await live.until("ready")

    run(test())


def test_a_session_needs_a_valid_token(target: str, tmp_path: Any) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"camera-1 {hashlib.sha256(b'right').hexdigest()}\n")

    async def test() -> None:
        async with running_gateway(target, token_file=str(tokens)) as gateway:
            for token in ("", "wrong"):
                async with gateway.connect() as live:
                    await live.say({"type": "start", "media": "webm", "token": token})
                    assert (await live.rest())[-1]["code"] == "unauthorized"
            async with gateway.session(token="right"):
                pass
            async with gateway.connect({"authorization": "Bearer right"}) as live:
                await live.say({"type": "start", "media": "webm"})
                await live.until("ready")
            async with gateway.client.get(f"{gateway.url}/config.json") as answer:
                assert (await answer.json())["auth"] == "token"

    run(test())


def test_a_ping_is_answered_and_acknowledges_events(service: FakeLipReading, target: str) -> None:
    gate = Gate(service)

    async def test() -> None:
        async with running_gateway(target) as gateway, gateway.session() as live:
            await live.send_all(media(1.0))
            last = await live.until("segment")
            await live.say({"type": "ping", "last_event": last["event"]})
            await live.until("pong")

    run(test())
    gate.opened.set()
