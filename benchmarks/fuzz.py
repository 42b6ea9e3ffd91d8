"""Coverage-guided fuzzing of a real server: ``python benchmarks/fuzz.py --inputs 20000 --out fuzz.json``.

Valid calls are mutated (``mutations``) and sent. Calls that reach new server code or get a new kind of response are kept
and mutated further. The server runs as in production, in a subprocess with sandboxed decoders; ``coverage_server``
records its coverage, while FFmpeg is observed by its responses only.

A run fails if the server exits, a call exceeds its deadline, memory exceeds the limit, a response has a status that
docs/operations.md does not document for client errors, or streams are left. The input is then saved in ``--findings``.
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

from benchmarks.command import make_parser
from benchmarks.coverage_server import MAP_BYTES
from benchmarks.fuzz_seeds import RECOGNIZE, REFLECTION, REQUEST_TYPES, STREAMING, Call, Request, make_seeds
from benchmarks.mutations import mutate_media, mutate_message, mutate_wire
from benchmarks.server_process import ServerProcess
from gorggle.v1 import lip_reading_pb2

# Statuses of client errors. INTERNAL, UNKNOWN and the rest are server faults.
DOCUMENTED_STATUSES = frozenset(
    {
        *("OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "NOT_FOUND", "RESOURCE_EXHAUSTED"),
        *("DATA_LOSS", "ABORTED"),  # sequence gaps, and superseded sessions
    }
)
WORKERS = 4
MIB = 2**20
LIMITS = {
    "max-streams": 8,
    "idle-timeout-s": 10,
    "decoder-timeout-s": 10,
    "max-stream-duration-s": 30,
    "max-clip-duration-s": 30,
    "max-spooled-bytes": 8 * MIB,
    "max-frame-pixels": 1280 * 720,
    "decoder-memory-bytes": 768 * MIB,
    "num-threads": 1,
}
# Above the idle server: frames, audio and results of eight streams.
MEMORY_GROWTH_BYTES = 400 * MIB
PROGRAM = str(Path(__file__).with_name("coverage_server.py"))


@dataclass
class Findings:
    """Results and faults of a run."""

    folder: Path
    calls: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_rss_bytes: int = 0
    peak_decoder_rss_bytes: int = 0
    progress: list[tuple[int, int, int]] = field(default_factory=list)  # calls, coverage, calls kept

    def record_fault(self, what: str, call: Call | None = None) -> None:
        """Record a fault and save the call that caused it."""
        entry: dict[str, Any] = {"what": what}
        if call is not None:
            path = self.folder / f"{len(self.faults):04d}.json"
            self.folder.mkdir(parents=True, exist_ok=True)
            messages = [message.hex() for message in call.messages]
            path.write_text(json.dumps({"method": call.method, "messages": messages}))
            entry["input"] = str(path)
        self.faults.append(entry)
        print(f"fault: {what}", file=sys.stderr, flush=True)


class Corpus:
    """Calls to mutate, and the server's behaviour seen so far.

    Attributes:
        coverage: number of covered line transitions.
        kept: calls kept in addition to the seeds.
    """

    def __init__(self, seeds: list[Call], reached: Path) -> None:
        self.coverage = 0
        self.kept: list[Call] = []
        self._seeds, self._reached_path = seeds, reached
        self._outcomes: set[str] = set()
        self._lock = threading.Lock()

    def choose(self, rng: random.Random, media_share: float) -> tuple[Call, Call]:
        """Choose a call to mutate, and another of the same method to mix in."""
        wants_media = rng.random() < media_share
        with self._lock:
            known = self.kept[-400:] if self.kept and rng.random() < 0.6 else self._seeds
            alike = [call for call in known if call.has_media == wants_media] or self._seeds
        call = rng.choice(alike)
        return call, rng.choice([other for other in alike if other.method == call.method])

    def add_if_new(self, call: Call, answer: str) -> None:
        """Keep a call that increased coverage or had a new outcome."""
        places = MAP_BYTES - self._reached_path.read_bytes().count(0)
        with self._lock:
            if places > self.coverage or answer not in self._outcomes:
                self.kept.append(call)
            self.coverage = max(self.coverage, places)
            self._outcomes.add(answer)


def mutate(call: Call, other: Call, rng: random.Random) -> Call:
    """Mutate a call: its media, its fields, its bytes, or the order of its messages."""
    if call.has_media and rng.random() < 0.75:
        return _mutate_media_call(call, other, rng)
    messages = list(call.messages)
    if len(messages) > 1 and rng.random() < 0.3:
        _reorder(messages, rng)
    else:
        at = rng.randrange(len(messages))
        against = rng.choice(other.messages)
        messages[at] = mutate_message(messages[at], REQUEST_TYPES[call.method], rng, against)
    return Call(call.method, tuple(messages), call.has_media)


def _mutate_media_call(call: Call, other: Call, rng: random.Random) -> Call:
    config, data = _extract_media(call)
    data = mutate_media(data, rng, _extract_media(other)[1] if other.has_media else b"")
    if call.method == RECOGNIZE:
        request = lip_reading_pb2.RecognizeRequest(config=config, content=data)
        return Call(RECOGNIZE, (request.SerializeToString(),), has_media=True)
    pieces = [config]
    while data:
        size = rng.choice((1, 100, 188, 4000, 20_000, 20_000, 200_000))
        pieces.append(Request(media=data[:size]).SerializeToString())
        # Limits the number of messages.
        data = data[size:] if len(pieces) < 60 else data[max(size, len(data) // 10 + 1) :]
    return Call(STREAMING, tuple(pieces), has_media=True)


def _extract_media(call: Call) -> tuple[Any, bytes]:
    """Return the configuration and the media of a call; undecodable messages count as empty."""
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


def _reorder(messages: list[bytes], rng: random.Random) -> None:
    at, other = rng.randrange(len(messages)), rng.randrange(len(messages))
    match rng.randrange(5):
        case 0:
            del messages[at]
        case 1:
            messages.insert(other, messages[at])
        case 2:
            messages[at], messages[other] = messages[other], messages[at]
        case 3:
            messages.insert(at, b"")
        case _:
            messages[at:at] = [mutate_wire(messages[at], rng)]


class Fuzzer:
    """Sends mutated calls from several threads and monitors the server."""

    def __init__(
        self, server: ServerProcess, corpus: Corpus, findings: Findings, options: argparse.Namespace
    ):
        self._server, self._corpus, self._findings, self._options = server, corpus, findings, options
        self._lock = threading.Lock()
        self._inputs = iter(range(options.inputs))
        self._stopped = threading.Event()
        self._limit_bytes = server.usage().rss_bytes + MEMORY_GROWTH_BYTES

    def run(self) -> None:
        """Send all calls."""
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(WORKERS) as pool:
                for worker in [pool.submit(self._work, number) for number in range(WORKERS)]:
                    worker.result()
        finally:
            self._stopped.set()
            watcher.join()
        try:
            self._server.wait_until_idle(30)
        except AssertionError as error:
            self._findings.record_fault(str(error))

    def _work(self, number: int) -> None:
        rng = random.Random(f"{self._options.seed}-{number}")
        end = time.monotonic() + self._options.minutes * 60
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * MIB)]
        with grpc.insecure_channel(self._server.address, options) as channel:
            while self._server.is_running and time.monotonic() < end and next(self._inputs, None) is not None:
                self._send(channel, mutate(*self._corpus.choose(rng, self._options.media_share), rng))

    def _send(self, channel: grpc.Channel, call: Call) -> None:
        start = time.monotonic()
        status, answer = send_call(channel, call, self._options.deadline_s)
        took_s = time.monotonic() - start
        self._corpus.add_if_new(call, answer)
        with self._lock:
            found = self._findings
            kind = call.method.rpartition("/")[2] + (" with media" if call.has_media else "")
            found.calls[kind] += 1
            found.statuses[status] += 1
            found.slowest_s = max(found.slowest_s, took_s)
            if took_s >= self._options.deadline_s:
                found.record_fault(f"no response within {took_s:.0f} s", call)
            elif status not in DOCUMENTED_STATUSES:
                found.record_fault(f"{status}: {answer[:300]}", call)
            total = found.calls.total()
            if total % 250 == 0:
                found.progress.append((total, self._corpus.coverage, len(self._corpus.kept)))
                print("{} calls, coverage {}, {} kept".format(*found.progress[-1]), flush=True)

    def _watch(self) -> None:
        reported = False
        while not self._stopped.wait(0.25) and self._server.is_running:
            found = self._findings
            try:
                usage = self._server.usage()
            except urllib.error.HTTPError as error:
                found.record_fault(f"metrics request failed: {error}")
                continue
            except OSError:  # the server has exited, or the machine is busy
                continue
            found.peak_rss_bytes = max(found.peak_rss_bytes, usage.rss_bytes)
            found.peak_decoder_rss_bytes = max(
                found.peak_decoder_rss_bytes, usage.children_rss_bytes // max(1, usage.children)
            )
            if usage.rss_bytes > self._limit_bytes and not reported:
                reported = True
                found.record_fault(
                    f"the server uses {usage.rss_bytes // MIB} MiB; the limit is {self._limit_bytes // MIB}"
                )
        if not self._server.is_running:
            self._findings.record_fault(f"the server exited: {self._server.log[-2000:]}")


def send_call(channel: grpc.Channel, call: Call, deadline_s: float) -> tuple[str, str]:
    """Send a call; return its status, and its outcome: status, message pattern and event kinds."""
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
    """Run the fuzzer and return the report."""
    calls = make_seeds()
    if not options.all_seeds:
        calls = [call for call in calls if sum(map(len, call.messages)) < 60_000]
    found = Findings(Path(options.findings))
    start = time.monotonic()
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
        except AssertionError as error:  # startup or shutdown failed
            found.record_fault(str(error))
            raise
    return {
        "calls": found.calls.total(),
        "by_kind": dict(found.calls),
        "by_status": dict(found.statuses),
        "seeds": len(calls),
        "kept": len(corpus.kept),
        "coverage": corpus.coverage,
        "progress": found.progress,
        "slowest_call_s": round(found.slowest_s, 2),
        "server_rss_mib": {
            "before": before.rss_bytes // MIB,
            "peak": found.peak_rss_bytes // MIB,
            "after": after.rss_bytes // MIB,
        },
        "largest_decoder_rss_mib": found.peak_decoder_rss_bytes // MIB,
        "leaks": after.growth_since(before),
        "faults": found.faults,
        "took_s": round(time.monotonic() - start),
        "seed": options.seed,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer; return 1 if there were faults."""
    parser = make_parser(__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="number of calls")
    parser.add_argument("--minutes", type=float, default=600.0, help="time limit")
    parser.add_argument("--media-share", type=float, default=0.35, help="share of calls with media files")
    parser.add_argument(
        "--deadline-s", type=float, default=60.0, help="deadline per call; raise it on a busy machine"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all-seeds", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--findings", default=".build/fuzz", help="folder for calls that caused faults")
    options = parser.parse_args(arguments)
    report = run_fuzzer(options)
    text = json.dumps(report, indent=1)
    if options.out:
        options.out.write_text(text)
    print(text)
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
