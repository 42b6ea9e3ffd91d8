"""Tens of thousands of hostile calls to a real server: ``python benchmarks/fuzz.py --inputs 20000 --out fuzz.json``.

Real calls are spoiled (``mutations``) and sent. What reaches new code of the server, or gets an answer of a new kind, is
kept and spoiled further: coverage guidance from outside, for the server runs as it does in earnest, in a process of its
own, with FFmpeg in processes of their own (``traced_server`` tells what was reached; of FFmpeg the answers tell).

A run fails where the server's process ends, a call outlives its deadline, memory passes the limit, an answer has a status
that docs/operations.md does not give for a caller's fault, or calls are left over. The input is then in ``--findings``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from benchmarks.coverage_server import MAP_BYTES
from benchmarks.fuzz_seeds import RECOGNIZE, REFLECTION, REQUEST_TYPES, STREAMING, Call, Request, make_seeds
from benchmarks.mutations import mutate_media, mutate_message, mutate_wire
from benchmarks.server_process import ServerProcess
from gorggle.v1 import lip_reading_pb2

# What a caller may be answered whatever it sends. INTERNAL, UNKNOWN and the rest are the server's faults.
DOCUMENTED_STATUSES = frozenset(
    (
        "OK",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "NOT_FOUND",
        "RESOURCE_EXHAUSTED",
        # Sequence numbers with a gap, a session that another call has taken over.
        "DATA_LOSS",
        "ABORTED",
    )
)
WORKERS = 4
MIB = 2**20
DECODER_MEMORY_BYTES = 768 * MIB
LIMITS = {
    "max-streams": 8,
    "idle-timeout-s": 10,
    "decoder-timeout-s": 10,
    "max-stream-duration-s": 30,
    "max-clip-duration-s": 30,
    "max-spooled-bytes": 8 * MIB,
    "max-frame-pixels": 1280 * 720,
    "decoder-memory-bytes": DECODER_MEMORY_BYTES,
    "threads": 1,
}
# Above what the server needs with nobody calling: eight streams' worth of pictures, sound and results.
MEMORY_GROWTH_BYTES = 400 * MIB
PROGRAM = str(Path(__file__).with_name("traced_server.py"))


@dataclass
class Findings:
    """What has been seen so far."""

    folder: Path
    calls: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_rss_bytes: int = 0
    peak_decoder_rss_bytes: int = 0
    progress: list[tuple[int, int, int]] = field(default_factory=list)  # inputs, places reached, calls kept

    def record_fault(self, what: str, call: Call | None = None) -> None:
        """Note a fault, and keep the call that did it."""
        entry: dict[str, Any] = {"what": what}
        if call is not None:
            path = self.folder / f"{len(self.faults):04d}.json"
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps({"method": call.method, "messages": [message.hex() for message in call.messages]})
            )
            entry["input"] = str(path)
        self.faults.append(entry)
        print(f"fault: {what}", file=sys.stderr, flush=True)


class Corpus:
    """The calls worth spoiling, and what the server has been seen to do."""

    def __init__(self, calls: list[Call], reached: Path) -> None:
        self._seeds, self._kept = list(calls), list[Call]()
        self._reached_path, self._coverage = reached, 0
        self._outcomes: set[str] = set()
        self._lock = threading.Lock()

    @property
    def coverage(self) -> int:
        """How many steps of the server's code were reached."""
        return self._coverage

    @property
    def kept(self) -> int:
        """How many calls were kept besides the seeds."""
        return len(self._kept)

    def choose(self, chance: random.Random, media_share: float) -> tuple[Call, Call]:
        """A call to spoil, and another of its kind to mix it with."""
        wants_media = chance.random() < media_share
        with self._lock:
            known = self._kept[-400:] if self._kept and chance.random() < 0.6 else self._seeds
            alike = [call for call in known if call.has_media == wants_media] or self._seeds
        call = chance.choice(alike)
        return call, chance.choice([other for other in alike if other.method == call.method])

    def add_if_new(self, call: Call, answer: str) -> None:
        """Keep a call that reached something new."""
        places = MAP_BYTES - self._reached_path.read_bytes().count(0)
        with self._lock:
            if places > self._coverage or answer not in self._outcomes:
                self._kept.append(call)
            self._coverage = max(self._coverage, places)
            self._outcomes.add(answer)


def mutate(call: Call, other: Call, chance: random.Random) -> Call:
    """A call made hostile: its media, its fields, its bytes, or the order of its messages."""
    if call.has_media and chance.random() < 0.75:
        return _mutate_media_call(call, other, chance)
    messages = list(call.messages)
    if len(messages) > 1 and chance.random() < 0.3:
        _reorder(messages, chance)
    else:
        at = chance.randrange(len(messages))
        against = chance.choice(other.messages)
        messages[at] = mutate_message(messages[at], REQUEST_TYPES[call.method], chance, against)
    return Call(call.method, tuple(messages), call.has_media)


def _mutate_media_call(call: Call, other: Call, chance: random.Random) -> Call:
    config, data = _extract_media(call)
    data = mutate_media(data, chance, _extract_media(other)[1] if other.has_media else b"")
    if call.method == RECOGNIZE:
        request = lip_reading_pb2.RecognizeRequest(config=config, content=data)
        return Call(RECOGNIZE, (request.SerializeToString(),), has_media=True)
    pieces = [config]
    while data:
        size = chance.choice((1, 100, 188, 4000, 20_000, 20_000, 200_000))
        pieces.append(Request(media=data[:size]).SerializeToString())
        # Thousands of messages of one byte test nothing but patience.
        data = data[size:] if len(pieces) < 60 else data[max(size, len(data) // 10 + 1) :]
    return Call(STREAMING, tuple(pieces), has_media=True)


def _extract_media(call: Call) -> tuple[Any, bytes]:
    """The configuration and the whole file of a call with media; what cannot be read any more counts as none."""
    if call.method == RECOGNIZE:
        try:
            request = lip_reading_pb2.RecognizeRequest.FromString(call.messages[0])
        except DecodeError:
            return None, b""
        return request.config, request.content
    data = b""
    for message in call.messages[1:]:
        try:
            data += Request.FromString(message).media
        except DecodeError:
            continue
    return call.messages[0] if call.messages else b"", data


def _reorder(messages: list[bytes], chance: random.Random) -> None:
    at, other = chance.randrange(len(messages)), chance.randrange(len(messages))
    match chance.randrange(5):
        case 0:
            del messages[at]
        case 1:
            messages.insert(other, messages[at])
        case 2:
            messages[at], messages[other] = messages[other], messages[at]
        case 3:
            messages.insert(at, b"")
        case _:
            messages[at:at] = [mutate_wire(messages[at], chance)]


class Fuzzer:
    """Sends hostile calls from several threads and watches the server meanwhile."""

    def __init__(
        self, server: ServerProcess, corpus: Corpus, findings: Findings, options: argparse.Namespace
    ):
        self._server, self._corpus, self._findings, self._options = server, corpus, findings, options
        self._lock = threading.Lock()
        self._started = 0
        self._stopped = threading.Event()
        self._limit_bytes = server.usage().rss_bytes + MEMORY_GROWTH_BYTES

    def run(self) -> None:
        """Send everything."""
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(WORKERS) as pool:
                for worker in [pool.submit(self._work, number) for number in range(WORKERS)]:
                    worker.result()
        finally:
            self._stopped.set()
            watcher.join()
        self._check_no_streams_left()

    def _work(self, number: int) -> None:
        chance = random.Random(f"{self._options.seed}-{number}")
        end = time.monotonic() + self._options.minutes * 60
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * MIB)]
        with grpc.insecure_channel(self._server.address, options) as channel:
            while self._server.is_running and time.monotonic() < end and self._claim_input():
                self._send(channel, mutate(*self._corpus.choose(chance, self._options.media_share), chance))

    def _claim_input(self) -> bool:
        with self._lock:
            self._started += 1
            return self._started <= self._options.inputs

    def _send(self, channel: grpc.Channel, call: Call) -> None:
        begun = time.monotonic()
        status, answer = send_call(channel, call, self._options.deadline_s)
        took_s = time.monotonic() - begun
        self._corpus.add_if_new(call, answer)
        with self._lock:
            found = self._findings
            kind = call.method.rpartition("/")[2] + (" with media" if call.has_media else "")
            found.calls[kind] += 1
            found.statuses[status] += 1
            found.slowest_s = max(found.slowest_s, took_s)
            if took_s >= self._options.deadline_s:
                found.record_fault(f"no answer within {took_s:.0f} s", call)
            elif status not in DOCUMENTED_STATUSES:
                found.record_fault(f"{status}: {answer[:300]}", call)
            total = found.calls.total()
            if total % 250 == 0:
                found.progress.append((total, self._corpus.coverage, self._corpus.kept))
                print(f"{total} calls, {self._corpus.coverage} places, {self._corpus.kept} kept", flush=True)

    def _watch(self) -> None:
        told = False
        while not self._stopped.wait(0.25) and self._server.is_running:
            found = self._findings
            try:
                usage = self._server.usage()
            except urllib.error.HTTPError as error:
                found.record_fault(f"the metrics fail: {error}")
                continue
            except OSError:  # it has just ended, or the machine is busy with something else
                continue
            found.peak_rss_bytes = max(found.peak_rss_bytes, usage.rss_bytes)
            found.peak_decoder_rss_bytes = max(
                found.peak_decoder_rss_bytes, usage.children_rss_bytes // max(1, usage.children)
            )
            if usage.rss_bytes > self._limit_bytes and not told:
                told = True
                found.record_fault(
                    f"the server has {usage.rss_bytes // MIB} MiB; the limit is {self._limit_bytes // MIB}"
                )
        if not self._server.is_running:
            self._findings.record_fault(f"the server's process ended: {self._server.log[-2000:]}")

    def _check_no_streams_left(self) -> None:
        deadline = time.monotonic() + 30
        while self._server.is_running and self._server.metrics()["gorggle_active_streams"]:
            if time.monotonic() > deadline:
                self._findings.record_fault("calls are left over after their callers have gone")
                return
            time.sleep(0.2)


def send_call(channel: grpc.Channel, call: Call, deadline_s: float) -> tuple[str, str]:
    """The status of a call, and what kind of answer it is: the status, the message's shape, the events' kinds."""
    kinds: list[str] = []
    try:
        if call.method in (STREAMING, REFLECTION):
            for response in channel.stream_stream(call.method)(iter(call.messages), timeout=deadline_s):
                if call.method == STREAMING:
                    event = lip_reading_pb2.StreamingRecognizeResponse.FromString(response)
                    kinds.append(_event_kind(event))
        else:
            channel.unary_unary(call.method)(call.messages[0], timeout=deadline_s)
    except grpc.RpcError as error:
        said = re.sub(r"[0-9a-f]{32}|[\d.]+|'[^']*'", "#", error.details() or "")
        return error.code().name, f"{error.code().name} {said[:120]} {sorted(set(kinds))}"
    return "OK", f"OK {sorted(set(kinds))}"


def _event_kind(event: lip_reading_pb2.StreamingRecognizeResponse) -> str:
    kind = event.WhichOneof("event") or "nothing"
    if kind == "media_info":
        info = event.media_info
        return f"{info.container} {info.video_codec} {info.audio_codec} {info.rotation_degrees}"
    return f"warning {event.warning.kind}" if kind == "warning" else kind


def run_fuzzer(options: argparse.Namespace) -> dict[str, Any]:
    """Run, and report."""
    calls = make_seeds()
    if not options.all_seeds:
        calls = [call for call in calls if call.bytes_sent < 60_000]
    found = Findings(Path(options.findings))
    begun = time.monotonic()
    arguments = [text for name, value in LIMITS.items() for text in (f"--{name}", str(value))]
    with tempfile.NamedTemporaryFile() as reached:
        reached.write(bytes(MAP_BYTES))
        reached.flush()
        corpus = Corpus(calls, Path(reached.name))
        server = ServerProcess(*arguments, program=(PROGRAM, reached.name), log_level="ERROR")
        try:
            with server:
                before = after = server.usage()
                Fuzzer(server, corpus, found, options).run()
                after = server.usage() if server.is_running else before
                if found.faults:
                    (found.folder / "server.log").write_text(server.log)
        except AssertionError as error:  # it did not start, or did not end well
            found.record_fault(str(error))
            raise
    return {
        "calls": found.calls.total(),
        "by_kind": dict(found.calls),
        "by_status": dict(found.statuses),
        "seeds": len(calls),
        "kept": corpus.kept,
        "places_reached": corpus.coverage,
        "growth": found.progress,
        "slowest_call_s": round(found.slowest_s, 2),
        "server_rss_mib": {
            "before": before.rss_bytes // MIB,
            "peak": found.peak_rss_bytes // MIB,
            "after": after.rss_bytes // MIB,
        },
        "largest_decoder_rss_mib": found.peak_decoder_rss_bytes // MIB,
        "left_over": {
            kind: getattr(after, kind) - getattr(before, kind)
            for kind in ("open_files", "threads", "tasks", "children")
        },
        "faults": found.faults,
        "took_s": round(time.monotonic() - begun),
        "seed": options.seed,
    }


def main(arguments: list[str] | None = None) -> int:
    """Fuzz as the command line says; 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="calls to send")
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after so long")
    parser.add_argument("--media-share", type=float, default=0.35, help="share of calls with media files")
    parser.add_argument(
        "--deadline-s", type=float, default=60.0, help="of each call; more where other work has the machine"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all-seeds", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--findings", default=".build/fuzz", help="folder for the inputs that did harm")
    parser.add_argument("--out", help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    report = run_fuzzer(options)
    text = json.dumps(report, indent=1)
    if options.out:
        Path(options.out).write_text(text)
    print(text)
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
