"""Stream the demo clip to a local server, print the segments as they arrive, and compare them with the reference.

Run it with ``make demo``, or on another clip: ``python examples/demo.py CLIP.mp4 REFERENCE.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from gorggle import Client, Event, Segment, StreamWarning, Word, to_text_line
from gorggle.local_server import LocalServer
from gorggle.results import Modality
from gorggle_evaluation.metrics import align_words, compute_time_error, compute_time_offsets_s
from gorggle_evaluation.transcriber import extract_words

HERE = Path(__file__).resolve().parent
CHUNK_BYTES = 16 * 1024
REAL_PEOPLE_MODEL = "gorggle-mini-2"
# Of the same clips; docs/models.md has the intervals.
WITH_MOONSHINE = "2.9 % (lips and audio), 4 % (audio alone)"


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
    # Served beside the default model, for its card.
    os.environ["GORGGLE_MODELS"] = json.dumps({REAL_PEOPLE_MODEL: REAL_PEOPLE_MODEL})
    with LocalServer() as server, Client(server.address) as client:
        print(f"ready in {time.monotonic() - started:.1f} s.")
        info = client.server_info()
        print(f"gorggle {info.version}, model {info.default_model}, on {info.device}.\n")
        modalities: list[Modality] = arguments.modality or ["av", "video"]
        for modality in modalities:
            transcribe_clip(client, arguments.clip, reference, modality)
        print(describe_accuracy_for_real_people(client))
    return 0


def transcribe_clip(client: Client, clip: Path, reference: dict[str, Any], modality: Modality) -> None:
    """Transcribe the clip and print the result."""
    heading = {"av": "video and audio", "video": "video only (the audio is not used)", "audio": "audio only"}
    print(f"── {clip.name}, {heading[modality]} " + "─" * 30)
    segments: list[Segment] = []
    started = time.monotonic()
    stream = client.transcribe(clip, modality=modality, chunk_bytes=CHUNK_BYTES, on_event=print_warning)
    for segment in stream:
        if not segments:
            first_after_s, sent = time.monotonic() - started, stream.bytes_sent / clip.stat().st_size
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


def print_warning(event: Event) -> None:
    """Print a warning, such as why words are marked with (?)."""
    if isinstance(event, StreamWarning):
        print(f"  warning: {event.message}")


def describe_accuracy_for_real_people(client: Client) -> str:
    """Return one line on what the embedded model for real people reads of speakers that it has never seen."""
    model = client.model(REAL_PEOPLE_MODEL)
    rates = [rate for rate in model.error_rates if rate.dataset.endswith("not in the training")]
    names = {"av": "lips and audio", "video": "lips alone", "audio": "audio alone"}
    figures = ", ".join(f"{rate.word_error_rate_percent:g} % ({names[rate.modality]})" for rate in rates)
    return (
        f"Real people: of {rates[0].dataset}, --model {model.name} alone gets {figures} of the words wrong, "
        f"and with moonshine-tiny-en, the default where it is installed, {WITH_MOONSHINE}; the lip reader above knows rendered "
        "speakers only. Other English sentences are recognized from the audio."
    )


def compare(segments: list[Segment], reference: dict[str, Any]) -> None:
    """Print the reference, the word error rate and the error of the word timestamps."""
    expected = [
        Word(word["text"], word["start_s"], word["end_s"])
        for sentence in reference["sentences"]
        for word in sentence["words"]
    ]
    words = extract_words(segments)
    for sentence in reference["sentences"]:
        first, last = sentence["words"][0], sentence["words"][-1]
        print(f"  reference [{first['start_s']:6.2f} - {last['end_s']:6.2f}] {sentence['text']}")
    found = align_words([word.text for word in expected], [word.text for word in words])
    print(
        f"\n  word error rate  {found.errors / found.words:.1%} ({found.errors} of {found.words} words: ",
        end="",
    )
    print(f"{len(found.substitutions)} substitutions, {len(found.insertions)} insertions, ", end="")
    print(f"{len(found.deletions)} deletions)")
    # "F2" is two words, of which only the first has a start and only the last has an end.
    pairs = [
        (expected[i], words[j]) for i, j in found.correct if None not in (words[j].start_s, words[j].end_s)
    ]
    errors = compute_time_error(compute_time_offsets_s(pairs))
    if errors is not None:
        print(
            f"  word timestamps  median error {errors.median_ms:.0f} ms, {errors.within_100_ms:.0%} within 100 ms"
        )


if __name__ == "__main__":
    sys.exit(main())
