"""Draw what was read of the demo clip: a frame with the face that was followed, and the words on a line of time.

``python examples/plot_demo.py docs/images/demo.png`` draws the picture of the README.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import av
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from gorggle import Client, Segment
from gorggle.local_server import LocalServer

HERE = Path(__file__).resolve().parent
HYPOTHESIS_COLOUR, REFERENCE_COLOUR, AUDIO_COLOUR, TEXT_COLOUR = "#0b7a75", "#ccd6da", "#8fa3ad", "#22313a"
SHOWN_SENTENCES = 2


def main() -> None:
    """Read the clip from the lips alone and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--clip", type=Path, default=HERE / "demo.mp4")
    arguments = parser.parse_args()
    truth = json.loads(arguments.clip.with_suffix(".json").read_text())
    with LocalServer() as server, Client(server.address) as client:
        segments = list(client.transcribe(arguments.clip, modality="video", face_boxes=True))
    figure, (frame_axes, line_axes) = plt.subplots(
        1, 2, figsize=(13, 3.6), width_ratios=(1, 2.6), layout="constrained"
    )
    draw_frame(frame_axes, arguments.clip, segments[0])
    draw_words(line_axes, arguments.clip, segments, truth["sentences"][:SHOWN_SENTENCES])
    figure.savefig(arguments.out, dpi=110, facecolor="white")


def draw_frame(axes: Axes, clip: Path, segment: Segment) -> None:
    """The frame in the middle of a segment, the face's box, and the text as a caption."""
    middle_s = (segment.start_s + segment.end_s) / 2
    with av.open(str(clip)) as container:
        picture = next(
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0) if frame.time >= middle_s
        )
    height, width = picture.shape[:2]
    axes.imshow(picture)
    box = min(segment.face_boxes, key=lambda box: abs(box.time_s - middle_s))
    corner = (box.left * width, box.top * height)
    size = (box.width * width, box.height * height)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#6ff0e4", linewidth=2))
    axes.text(*corner, f" {segment.speaker}", color="#6ff0e4", va="bottom", fontsize=10, fontweight="bold")
    axes.text(
        width / 2,
        height * 0.95,
        segment.text,
        color="white",
        ha="center",
        va="bottom",
        fontsize=13,
        bbox={"facecolor": "#000000b0", "edgecolor": "none", "boxstyle": "round,pad=0.4"},
    )
    axes.set_axis_off()


def draw_words(axes: Axes, clip: Path, segments: list[Segment], sentences: list[dict[str, Any]]) -> None:
    """The words read above the words said, over the sound that was not listened to."""
    rate_hz, wave = read_audio(clip)
    end_s = sentences[-1]["words"][-1]["end_s"] + 0.6
    wave = wave[: int(end_s * rate_hz)]
    step = rate_hz // 200
    peaks = np.abs(wave[: len(wave) // step * step]).reshape(-1, step).max(axis=1)
    times = np.arange(len(peaks)) * step / rate_hz
    axes.fill_between(times, 0.45 + 0.4 * peaks, 0.45 - 0.4 * peaks, color=AUDIO_COLOUR, linewidth=0)
    for segment in (segment for segment in segments if segment.start_s < end_s):
        for word in segment.words:
            _word(axes, word.start_s, word.end_s, 1.55, word.text, HYPOTHESIS_COLOUR, "white")
    for sentence in sentences:
        for said in sentence["words"]:
            _word(axes, said["start_s"], said["end_s"], 1.0, said["text"], REFERENCE_COLOUR, TEXT_COLOUR)
    axes.set_xlim(0, end_s)
    axes.set_ylim(0, 2.1)
    axes.set_yticks([1.75, 1.2, 0.45], ["read from\nthe lips alone", "truth", "sound\n(not used)"])
    axes.set_xlabel("seconds")
    axes.tick_params(left=False, colors=TEXT_COLOUR)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _word(axes: Axes, start_s: float, end_s: float, bottom: float, text: str, fill: str, ink: str) -> None:
    axes.add_patch(
        Rectangle((start_s, bottom), end_s - start_s, 0.4, facecolor=fill, edgecolor="white", linewidth=1)
    )
    axes.text((start_s + end_s) / 2, bottom + 0.2, text, color=ink, ha="center", va="center", fontsize=11)


def read_audio(clip: Path) -> tuple[int, np.ndarray]:
    """The sample rate and the waveform, at most 1 in size."""
    with av.open(str(clip)) as container:
        rate_hz = container.streams.audio[0].rate
        wave = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)])
    return rate_hz, wave / np.abs(wave).max()


if __name__ == "__main__":
    main()
