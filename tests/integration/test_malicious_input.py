"""Malicious requests and media, sent to a real server: each gets a documented status, and the server keeps serving."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import DOCUMENTED_STATUSES
from benchmarks.fuzz_seeds import RECOGNIZE, REQUEST_TYPES, STREAMING, make_preprocessed_calls
from benchmarks.mutations import mutate_media, mutate_message, mutate_wire, parse_boxes, parse_elements
from gorggle.v1 import lip_reading_pb2
from tests.clips import remux, transcode
from tests.integration.conftest import DEMO, ROOT, RunningServer

CODE = grpc.StatusCode
UNPARSABLE = b"\xff\xff\xff\xff\xff\xff"
UNARY = sorted(set(REQUEST_TYPES) - {STREAMING})


@pytest.fixture(scope="module")
def channel(server: RunningServer):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def get_status(channel: grpc.Channel, method: str, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    """Call a method with raw messages; return the status code and details."""
    try:
        if method == STREAMING or "Reflection" in method:
            list(channel.stream_stream(method)(iter(messages), timeout=60))
        else:
            channel.unary_unary(method)(messages[0], timeout=60)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return CODE.OK, ""


@pytest.mark.parametrize("method", REQUEST_TYPES)
def test_an_unparsable_message_is_an_invalid_argument(channel: grpc.Channel, method: str, caplog) -> None:
    code, text = get_status(channel, method, UNPARSABLE)
    assert code is CODE.INVALID_ARGUMENT
    assert method in text
    assert "Traceback" not in caplog.text


def test_an_unparsable_message_in_mid_stream_ends_the_stream(channel: grpc.Channel) -> None:
    config = lip_reading_pb2.StreamingRecognizeRequest(config={}).SerializeToString()
    media = lip_reading_pb2.StreamingRecognizeRequest(media=DEMO.read_bytes()[:40_000]).SerializeToString()
    code, _ = get_status(channel, STREAMING, config, media, UNPARSABLE)
    assert code is CODE.INVALID_ARGUMENT


def test_deeply_nested_messages_get_a_documented_status(channel: grpc.Channel) -> None:
    nested = b""
    for _ in range(5000):
        length, size = len(nested), bytearray()
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        nested = b"\x0a" + bytes([*size, length]) + nested
    for method in (STREAMING, RECOGNIZE):
        assert get_status(channel, method, nested)[0].name in DOCUMENTED_STATUSES


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(UNARY), st.binary(max_size=300))
def test_arbitrary_bytes_get_a_documented_status_from_every_method(
    channel: grpc.Channel, method: str, data: bytes
) -> None:
    assert get_status(channel, method, data)[0].name in DOCUMENTED_STATUSES


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_mutated_calls_get_a_documented_status(channel: grpc.Channel, random) -> None:
    call = random.choice(get_preprocessed_calls())
    messages = [
        mutate_message(message, REQUEST_TYPES[call.method], random)
        if random.random() < 0.5
        else mutate_wire(message, random)
        if random.random() < 0.1
        else message
        for message in call.messages
    ]
    code, text = get_status(channel, call.method, *messages)
    assert code.name in DOCUMENTED_STATUSES, text


_CALLS: list = []


def get_preprocessed_calls() -> list:
    if not _CALLS:
        _CALLS.extend(make_preprocessed_calls())
    return _CALLS


def test_headers_above_the_limit_are_refused_and_binary_ones_are_not(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/gorggle.v1.LipReading/GetServerInfo")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=[("x-large", "a" * 40_000)], timeout=10)
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
    assert call(b"", metadata=[("x-large", "a" * 8_000)], timeout=10)
    assert call(b"", metadata=[("x-odd-bin", b"\xff\xfe\x00")], timeout=10)


# --------------------------------------------------------------------------------------------------------- mutations


def test_mutations_find_boxes_and_elements_and_keep_the_original(tmp_path: Path) -> None:
    import random

    clip = transcode(DEMO, tmp_path / "clip.mp4", size=(160, 120), max_s=0.2)
    mp4 = clip.read_bytes()
    kinds = {mp4[box.start + 4 : box.body] for box in parse_boxes(mp4)}
    assert {b"ftyp", b"moov", b"stsz", b"stsd"} <= kinds
    matroska = remux(clip, tmp_path / "clip.mkv", "matroska").read_bytes()
    assert len(parse_elements(matroska)) > 20
    for data in (mp4, matroska):
        before, results = bytes(data), {mutate_media(data, random.Random(number)) for number in range(50)}
        assert data == before
        assert len(results - {data}) > 40


@pytest.mark.drill
def test_a_short_fuzzing_run_finds_no_faults(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    options = ["--inputs", "200", "--minutes", "4", "--no-all-seeds", "--seed", "3", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *options]
    completed = subprocess.run(
        [*command, "--findings", str(tmp_path / "findings")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    report = json.loads(out.read_text())
    assert completed.returncode == 0, report["faults"]
    assert report["calls"] >= 100
    assert report["kept"] > 0
    assert report["progress"] or report["calls"] < 250
    assert set(report["by_status"]) <= DOCUMENTED_STATUSES
