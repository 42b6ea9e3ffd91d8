"""Latency of live results: ``python -m training clips --out clips --sentences 100``, then ``python -m benchmarks.live clips``.

Each clip is encoded like a camera stream (no B-frames, no buffering) and sent as MPEG-TS in real time to a real server,
one clip after the other. Measured per utterance: latency of the first interim result after its first word begins, and of
the final result after its last word ends. The run fails if stable text changes in a later result, or a target is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.client_streams import MediaChunk
from benchmarks.command import make_parser
from benchmarks.server_process import ServerProcess
from gorggle import AudioChunk, Client, Segment
from tests.integration.crop_stream import create_chunks

FIRST_INTERIM_TARGET_S, FINAL_TARGET_S = 1.0, 0.7
# A result belongs to the utterance with the largest overlap, if it is at least this long.
MIN_OVERLAP_S = 0.1
CROPS_CHUNK_FRAMES = 2


@dataclass
class Utterance:
    """An utterance of a clip, and the arrival of its results, in seconds from the clip's start."""

    text: str
    start_s: float
    end_s: float
    first_interim_s: float | None = None
    final_s: float | None = None
    transcripts: list[str] = field(default_factory=list)

    def overlap_s(self, segment: Segment) -> float:
        """Return the overlap with a segment, in seconds."""
        return min(self.end_s, segment.end_s) - max(self.start_s, segment.start_s)


def main() -> int:
    """Run the benchmark; return 1 if a target is missed or stable text changed."""
    options = _parse_args()
    clips = [json.loads(line) for line in (options.clips / "manifest.jsonl").read_text().splitlines()]
    arguments = ["--num-threads", str(options.threads)] if options.threads else []
    utterances: list[Utterance] = []
    changes: list[str] = []
    warnings: list[str] = []
    with ServerProcess(*arguments) as server, Client(server.address) as client:
        # One clip at full speed loads everything that is loaded lazily.
        client.transcribe(options.clips / clips[0]["media"]).transcript()
        for clip in clips:
            if len(utterances) >= options.utterances:
                break
            spoken = [Utterance(s["text"], s["start_s"], s["end_s"]) for s in clip["sentences"]]
            path = options.clips / clip["media"]
            pieces = encode_video(path) if options.kind == "video" else cut_mouth_crops(path)
            found = stream_clip(client, pieces, spoken, modality=options.modality)
            utterances += spoken
            changes += found[0]
            warnings += found[1]
            print(f"{clip['id']}: {_format_delays(spoken)}", flush=True)
    load = [round(load, 1) for load in os.getloadavg()]
    machine = {"cores": os.cpu_count(), "load": load, "cpu": platform.machine()}
    result = summarize(utterances, changes, warnings) | {"kind": options.kind, "machine": machine}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["met"] else 1


# -------------------------------------------------------------------------------------------------------------- streams


def encode_video(path: Path) -> list[MediaChunk]:
    """Encode a clip as a low-latency MPEG-TS stream."""
    sink = io.BytesIO()
    pieces: list[MediaChunk] = []
    with (
        av.open(str(path)) as source_file,
        av.open(
            sink, "w", format="mpegts", options={"pes_payload_size": "0", "flush_packets": "1"}
        ) as output,
    ):
        video: Any = output.add_stream(
            "libx264", rate=25, options={"preset": "veryfast", "tune": "zerolatency", "g": "25", "crf": "23"}
        )
        source = source_file.streams.video[0]
        video.width, video.height, video.pix_fmt = source.width, source.height, "yuv420p"
        audio: Any = output.add_stream("aac", rate=48_000, layout="mono")
        resampler = av.AudioResampler("fltp", "mono", 48_000, frame_size=1024)
        packets = []
        for frame in source_file.decode(video=0):
            due_s = float(frame.time) + 0.04
            image = frame.reformat(format="yuv420p")
            image.pts, image.time_base = round(frame.time * 25), Fraction(1, 25)
            packets += [(due_s, packet) for packet in video.encode(image)]
        source_file.seek(0)
        for audio_frame in source_file.decode(audio=0):
            for piece in resampler.resample(audio_frame):
                due_s = float(piece.time) + piece.samples / 48_000
                packets += [(due_s, packet) for packet in audio.encode(piece)]
        for due_s, packet in sorted(packets, key=lambda timed: timed[0]):
            output.mux(packet)
            pieces.append(MediaChunk(due_s, _drain(sink)))
    pieces.append(MediaChunk(pieces[-1].due_s, _drain(sink)))
    return [piece for piece in pieces if piece.content]


def cut_mouth_crops(path: Path) -> list[MediaChunk]:
    """Return a clip as mouth crops and audio, as from a client with its own face tracking."""
    pieces, end_s = [], CROPS_CHUNK_FRAMES / 25
    for content in create_chunks(path, chunk_frames=CROPS_CHUNK_FRAMES):
        pieces.append(MediaChunk(end_s, content))
        if isinstance(content, AudioChunk):  # the last one of its frames
            end_s += CROPS_CHUNK_FRAMES / 25
    return pieces


def _drain(sink: io.BytesIO) -> bytes:
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


def stream_clip(
    client: Client, chunks: Sequence[MediaChunk], utterances: Sequence[Utterance], modality: str
) -> tuple[list[str], list[str]]:
    """Stream a clip in real time and record the arrival of its results.

    Returns:
        Changes of stable text, and warnings.
    """
    changes: list[str] = []
    stable: dict[str, list[str]] = defaultdict(list)
    began = time.monotonic()

    def paced() -> Iterator[Any]:
        for piece in chunks:
            time.sleep(max(0.0, began + piece.due_s - time.monotonic()))
            yield piece.content

    stream: Any = client.transcribe(paced(), interim_results=True, live=True, modality=modality)
    for segment in stream:
        now_s = time.monotonic() - began
        words = segment.text.split()
        before = stable[segment.segment_id]
        if words[: len(before)] != before:
            changes.append(f"{segment.segment_id}: {' '.join(before)!r} became {segment.text!r}")
        stable[segment.segment_id] = segment.stable_text.split()
        _record_segment(segment, now_s, utterances)
    return changes, [warning.kind for warning in stream.warnings]


def _record_segment(segment: Segment, now_s: float, utterances: Sequence[Utterance]) -> None:
    utterance = max(utterances, key=lambda each: each.overlap_s(segment))
    if utterance.overlap_s(segment) < MIN_OVERLAP_S or not segment.text:
        return
    if segment.is_final:
        # An utterance may have several final segments: the last one counts.
        utterance.final_s = now_s
        utterance.transcripts.append(segment.text)
    if utterance.first_interim_s is None:
        utterance.first_interim_s = now_s


# -------------------------------------------------------------------------------------------------------------- figures


def summarize(
    utterances: Sequence[Utterance], changes: Sequence[str], warnings: Sequence[str]
) -> dict[str, Any]:
    """Compute latency percentiles and compare them with the targets."""
    first = [u.first_interim_s - u.start_s for u in utterances if u.first_interim_s is not None]
    final = [u.final_s - u.end_s for u in utterances if u.final_s is not None]
    result: dict[str, Any] = {
        "utterances": len(utterances),
        "without_result": sum(u.final_s is None for u in utterances),
        "correct": sum(" ".join(u.transcripts) == u.text for u in utterances),
        "first_interim_after_speech_begins_s": _percentiles(first),
        "final_after_speech_ends_s": _percentiles(final),
        "stable_text_changes": list(changes),
        "warnings": sorted(set(warnings)),
    }
    result["met"] = (
        not changes
        and bool(first and final)
        and result["first_interim_after_speech_begins_s"]["p95"] <= FIRST_INTERIM_TARGET_S
        and result["final_after_speech_ends_s"]["p95"] <= FINAL_TARGET_S
    )
    return result


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95, largest = np.percentile(values or [np.nan], (50, 95, 100)).round(3).tolist()
    return {"p50": p50, "p95": p95, "max": largest}


def _format_delays(utterances: Sequence[Utterance]) -> str:
    def delay(result_s: float | None, spoken_s: float) -> str:
        return "-" if result_s is None else f"{result_s - spoken_s:.2f}"

    return "  ".join(f"{delay(u.first_interim_s, u.start_s)}/{delay(u.final_s, u.end_s)}" for u in utterances)


def _parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("clips", type=Path, help="output folder of `python -m training clips`")
    parser.add_argument(
        "--utterances", type=int, default=100, help="minimum number of utterances (default: 100)"
    )
    parser.add_argument("--kind", choices=["video", "crops"], default="video", help="input (default: video)")
    parser.add_argument("--modality", choices=["av", "video", "audio"], default="av")
    parser.add_argument("--threads", type=int, default=0, help="model threads (default: the server's)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
