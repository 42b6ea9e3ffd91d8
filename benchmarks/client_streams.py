"""gRPC clients for benchmarks: real-time streams, and misbehaving clients."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, media_pb2
from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ

Request = lip_reading_pb2.StreamingRecognizeRequest
Stub = lip_reading_pb2_grpc.LipReadingStub
CHUNK_S = 0.2


def open_channel(address: str, **options: int) -> grpc.Channel:
    """Open a separate connection; options are gRPC's, without the ``grpc.`` prefix."""
    named = [(f"grpc.{name}", value) for name, value in options.items()]
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), *named])


def config_request(*, interim: bool = False, live: bool = False) -> Request:
    """Return the first message of a stream."""
    return Request(config=config_pb2.StreamingConfig(interim_results=interim, live=live))


@dataclass(frozen=True)
class MediaChunk:
    """A part of a stream and its due time, in seconds from the start."""

    due_s: float
    content: Any


def split_file(data: bytes, duration_s: float) -> list[MediaChunk]:
    """Split a media file into real-time chunks at its average bit rate."""
    count = max(1, round(duration_s / CHUNK_S))
    cuts = [len(data) * number // count for number in range(count + 1)]
    return [
        MediaChunk(number * CHUNK_S, Request(media=data[cuts[number] : cuts[number + 1]]))
        for number in range(count)
    ]


def split_crops(crops: bytes, samples: bytes, frames: int) -> list[MediaChunk]:
    """Split mouth crops and audio into synchronized real-time chunks."""
    step = round(CHUNK_S * FRAME_RATE_HZ)
    chunks = []
    for start in range(0, frames, step):
        end = min(frames, start + step)
        offsets = [dt.timedelta(seconds=frame / FRAME_RATE_HZ) for frame in range(start, end)]
        cut = media_pb2.MouthCrops(pixels=crops[start * 9216 : end * 9216], offsets=offsets)
        per_frame = 2 * SAMPLE_RATE_HZ // FRAME_RATE_HZ
        pcm = media_pb2.Pcm(samples=samples[start * per_frame : end * per_frame])
        due_s = end / FRAME_RATE_HZ
        chunks += [MediaChunk(due_s, Request(mouth_crops=cut)), MediaChunk(due_s, Request(pcm=pcm))]
    return chunks


@dataclass
class StreamOutcome:
    """The result of one real-time stream.

    Attributes:
        code: name of the status code.
        response_s: time until the server accepted or refused the stream.
        final_delays_s: for every final segment, its delay after the end of its media.
        lag_s: time from the last media sent to the end of the stream.
        client_lag_s: maximum delay of the client's own sending, from flow control or CPU contention.
    """

    code: str = "OK"
    response_s: float = 0.0
    final_delays_s: list[float] = field(default_factory=list)
    lag_s: float = 0.0
    client_lag_s: float = 0.0


def run_real_time_stream(channel: grpc.Channel, chunks: list[MediaChunk], timeout_s: float) -> StreamOutcome:
    """Send chunks when they are due, and measure the delay of the results."""
    outcome = StreamOutcome()
    began = time.monotonic()
    done_sending = [began]

    def requests() -> Iterator[Request]:
        yield config_request(live=True)
        for piece in chunks:
            late_s = time.monotonic() - began - piece.due_s
            outcome.client_lag_s = max(outcome.client_lag_s, late_s)
            if late_s < 0:
                time.sleep(-late_s)
            yield piece.content
        done_sending[0] = time.monotonic()

    try:
        for response in Stub(channel).StreamingRecognize(requests(), timeout=timeout_s):
            now_s = time.monotonic() - began
            match response.WhichOneof("event"):
                case "started":
                    outcome.response_s = now_s
                case "segment" if response.segment.is_final:
                    end_s = response.segment.end_offset.ToTimedelta().total_seconds()
                    outcome.final_delays_s.append(now_s - end_s)
                case "finished":
                    outcome.lag_s = max(0.0, time.monotonic() - done_sending[0])
    except grpc.RpcError as error:
        outcome.code = error.code().name
        outcome.response_s = outcome.response_s or time.monotonic() - began
    return outcome


# ---------------------------------------------------------------------------------------------------------- scenarios


class ClientScenarios:
    """Scenarios of well-behaved and misbehaving clients: each method runs one call and returns its status."""

    def __init__(self, address: str, data: bytes, rng: random.Random) -> None:
        self._address, self._data, self._rng = address, data, rng

    def normal(self) -> str:
        """Send all media at once and read all results."""
        return self._run(self._data)

    def cancel(self) -> str:
        """Cancel the call at a random moment."""
        with open_channel(self._address) as channel:
            call = self._start_call(channel, self._data)
            threading.Timer(self._rng.uniform(0, 2), call.cancel).start()
            return _drain(call)

    def corrupt(self) -> str:
        """Send corrupt or truncated media."""
        at = self._rng.randrange(len(self._data))
        data = self._data[:at]
        if self._rng.random() < 0.5:
            data += self._rng.randbytes(2000) + self._data[at + 2000 :]
        return self._run(data)

    def disconnect(self) -> str:
        """Close the connection after the first result."""
        with open_channel(self._address) as channel:
            try:
                for response in self._start_call(channel, self._data):
                    if response.WhichOneof("event") != "started":
                        break
            except grpc.RpcError as error:
                return error.code().name
        return "disconnected"

    def deadline(self) -> str:
        """Let the deadline expire."""
        return self._run(self._data, timeout_s=self._rng.uniform(0.01, 1.5))

    def slow_reader(self) -> str:
        """Read results every 0.1 s with a small flow-control window."""
        options = {"http2.lookahead_bytes": 1024, "http2.bdp_probe": 0}
        return self._run(self._data, pause_s=0.1, **options)

    def slow_writer(self) -> str:
        """Send media slowly."""
        size = max(1, len(self._data) // 25)

        def requests() -> Iterator[Request]:
            yield config_request()
            for at in range(0, len(self._data), size):
                time.sleep(0.1)
                yield Request(media=self._data[at : at + size])

        with open_channel(self._address) as channel:
            return _drain(Stub(channel).StreamingRecognize(requests(), timeout=120))

    def _run(self, data: bytes, timeout_s: float = 120, pause_s: float = 0.0, **options: int) -> str:
        with open_channel(self._address, **options) as channel:
            return _drain(self._start_call(channel, data, timeout_s), pause_s)

    def _start_call(self, channel: grpc.Channel, data: bytes, timeout_s: float = 120) -> grpc.Call:
        requests = [config_request(interim=self._rng.random() < 0.5), Request(media=data)]
        return Stub(channel).StreamingRecognize(iter(requests), timeout=timeout_s)


SCENARIOS = (
    ClientScenarios.normal,
    ClientScenarios.cancel,
    ClientScenarios.corrupt,
    ClientScenarios.disconnect,
    ClientScenarios.deadline,
    ClientScenarios.slow_reader,
    ClientScenarios.slow_writer,
)


def _drain(call: grpc.Call, pause_s: float = 0.0) -> str:
    try:
        for _ in call:
            time.sleep(pause_s)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"
