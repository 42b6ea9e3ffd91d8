"""Read the demo clip through a real server, as its bytes stream in, and compare with the truth.

Run it with ``make demo``, or on another clip: ``python examples/demo.py CLIP.mp4 TRUTH.json``.
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

from gorggle import Client, Segment
from gorggle.local_server import LocalServer

HERE = Path(__file__).resolve().parent
CHUNK_BYTES = 16 * 1024


class CountedChunks:
    """A clip in chunks, that knows how many bytes have been handed out."""

    def __init__(self, path: Path) -> None:
        self.path, self.size_bytes, self.sent_bytes = path, path.stat().st_size, 0

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.sent_bytes += len(chunk)
                yield chunk


def main() -> int:
    """Run the demo; the exit code is 0 when every word's source could be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path, default=HERE / "demo.mp4")
    parser.add_argument("truth", nargs="?", type=Path, default=HERE / "demo.json")
    parser.add_argument("--modality", choices=["av", "video", "audio"], action="append")
    arguments = parser.parse_args()
    truth = json.loads(arguments.truth.read_text())
    print("Starting the inference server ... ", end="", flush=True)
    started = time.monotonic()
    with LocalServer() as server, Client(server.address) as client:
        print(f"ready in {time.monotonic() - started:.1f} s.")
        info = client.server_info()
        print(f"gorggle {info.version}, model {info.default_model}, on {info.device}.\n")
        for modality in arguments.modality or ["av", "video"]:
            transcribe_clip(client, arguments.clip, truth, modality)
    return 0


def transcribe_clip(client: Client, clip: Path, truth: dict, modality: str) -> None:
    """Read the clip once and print what came of it."""
    heading = {"av": "lips and sound", "video": "lips alone (the sound is not used)", "audio": "sound alone"}
    print(f"── {clip.name}, {heading[modality]} " + "─" * 30)
    chunks = CountedChunks(clip)
    segments: list[Segment] = []
    begun = time.monotonic()
    for segment in client.transcribe(chunks, modality=modality, word_timestamps=True):
        if not segments:
            first_after_s, sent = time.monotonic() - begun, chunks.sent_bytes / chunks.size_bytes
        segments.append(segment)
        print(f"  [{segment.start_s:6.2f} - {segment.end_s:6.2f}] {segment.speaker}: {segment.text}")
    took_s = time.monotonic() - begun
    if not segments:
        sys.exit("no segment came back")
    print()
    compare(segments, truth)
    print(f"  first segment    after {first_after_s:.1f} s, when {sent:.0%} of the file had been sent")
    print(f"  whole clip       {truth['duration_s']:.1f} s of video in {took_s:.1f} s: ", end="")
    print(f"real-time factor {took_s / truth['duration_s']:.2f} (below 1 is faster than real time)\n")


def compare(segments: list[Segment], truth: dict) -> None:
    """Print the truth, the word error rate and the word times' error."""
    said = [word for sentence in truth["sentences"] for word in sentence["words"]]
    read_words = [word for segment in segments for word in segment.words]
    for sentence in truth["sentences"]:
        first, last = sentence["words"][0], sentence["words"][-1]
        print(f"  truth [{first['start_s']:6.2f} - {last['end_s']:6.2f}] {sentence['text']}")
    result = jiwer.process_words(
        " ".join(word["text"] for word in said), " ".join(word.text for word in read_words) or "-"
    )
    errors = result.substitutions + result.insertions + result.deletions
    print(
        f"\n  word error rate  {result.wer:.1%} ({errors} of {len(said)} words: {result.substitutions} other, ",
        end="",
    )
    print(f"{result.insertions} too many, {result.deletions} missing)")
    off_s = []
    for chunk in result.alignments[0]:
        if chunk.type == "equal":
            for i, j in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            ):
                off_s += [
                    abs(read_words[j].start_s - said[i]["start_s"]),
                    abs(read_words[j].end_s - said[i]["end_s"]),
                ]
    if off_s:
        within = sum(off <= 0.1 for off in off_s) / len(off_s)
        print(
            f"  word times       off by {statistics.median(off_s) * 1000:.0f} ms (median), {within:.0%} within 100 ms"
        )


if __name__ == "__main__":
    sys.exit(main())
