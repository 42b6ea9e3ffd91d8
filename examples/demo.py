"""Stream the demo clip to a local server, print the segments as they arrive, and compare them with the reference.

Run it with ``make demo``, or on another clip: ``python examples/demo.py CLIP.mp4 REFERENCE.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jiwer

from gorggle import Client, Segment, to_text_line
from gorggle.local_server import LocalServer

HERE = Path(__file__).resolve().parent
CHUNK_BYTES = 16 * 1024


class CountedChunks:
    """Iterates over a clip's chunks and counts the bytes sent."""

    def __init__(self, path: Path) -> None:
        self.path, self.size_bytes, self.sent_bytes = path, path.stat().st_size, 0

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.sent_bytes += len(chunk)
                yield chunk


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path, default=HERE / "demo.mp4")
    parser.add_argument("reference", nargs="?", type=Path, default=HERE / "demo.json")
    parser.add_argument("--modality", choices=["av", "video", "audio"], action="append")
    arguments = parser.parse_args()
    reference = json.loads(arguments.reference.read_text())
    print("Starting the inference server ... ", end="", flush=True)
    started = time.monotonic()
    with LocalServer() as server, Client(server.address) as client:
        print(f"ready in {time.monotonic() - started:.1f} s.")
        info = client.server_info()
        print(f"gorggle {info.version}, model {info.default_model}, on {info.device}.\n")
        for modality in arguments.modality or ["av", "video"]:
            transcribe_clip(client, arguments.clip, reference, modality)
    return 0


def transcribe_clip(client: Client, clip: Path, reference: dict, modality: str) -> None:
    """Transcribe the clip and print the result."""
    heading = {"av": "video and audio", "video": "video only (the audio is not used)", "audio": "audio only"}
    print(f"── {clip.name}, {heading[modality]} " + "─" * 30)
    chunks = CountedChunks(clip)
    segments: list[Segment] = []
    started = time.monotonic()
    for segment in client.transcribe(chunks, modality=modality, word_timestamps=True):
        if not segments:
            first_after_s, sent = time.monotonic() - started, chunks.sent_bytes / chunks.size_bytes
        segments.append(segment)
        print(f"  {to_text_line(segment)}")
    took_s = time.monotonic() - started
    if not segments:
        sys.exit("no segment was recognized")
    print()
    compare(segments, reference)
    print(f"  first segment    after {first_after_s:.1f} s, when {sent:.0%} of the file had been sent")
    print(f"  whole clip       {reference['duration_s']:.1f} s of video in {took_s:.1f} s: ", end="")
    print(f"real-time factor {took_s / reference['duration_s']:.2f} (below 1 is faster than real time)\n")


def compare(segments: list[Segment], reference: dict) -> None:
    """Print the reference, the word error rate and the error of the word timestamps."""
    expected = [word for sentence in reference["sentences"] for word in sentence["words"]]
    words = [word for segment in segments for word in segment.words]
    for sentence in reference["sentences"]:
        first, last = sentence["words"][0], sentence["words"][-1]
        print(f"  reference [{first['start_s']:6.2f} - {last['end_s']:6.2f}] {sentence['text']}")
    result = jiwer.process_words(
        " ".join(word["text"] for word in expected), " ".join(word.text for word in words) or "-"
    )
    errors = result.substitutions + result.insertions + result.deletions
    print(
        f"\n  word error rate  {result.wer:.1%} ({errors} of {len(expected)} words: {result.substitutions} substitutions, ",
        end="",
    )
    print(f"{result.insertions} insertions, {result.deletions} deletions)")
    errors_s = []
    for chunk in result.alignments[0]:
        if chunk.type == "equal":
            for i, j in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            ):
                errors_s += [
                    abs(words[j].start_s - expected[i]["start_s"]),
                    abs(words[j].end_s - expected[i]["end_s"]),
                ]
    if errors_s:
        within = sum(error <= 0.1 for error in errors_s) / len(errors_s)
        print(
            f"  word timestamps  median error {statistics.median(errors_s) * 1000:.0f} ms, {within:.0%} within 100 ms"
        )


if __name__ == "__main__":
    sys.exit(main())
