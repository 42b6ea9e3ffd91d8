"""Plot the transcript of the demo clip: a frame with the tracked face, and the words on a timeline.

``python examples/plot_demo.py docs/images/demo.png`` renders the README's image.
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
from gorggle.rendering.timeline_plot import PEAKS_PER_S, compute_audio_peaks

HERE = Path(__file__).resolve().parent
HYPOTHESIS_COLOUR, REFERENCE_COLOUR, AUDIO_COLOUR, TEXT_COLOUR = "#0b7a75", "#ccd6da", "#8fa3ad", "#22313a"
SHOWN_SENTENCES = 2


def main() -> None:
    """Transcribe the clip from video only and plot the result."""
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
    """Draw the frame in the middle of a segment, the face box, and the text as a caption."""
    middle_s = (segment.start_s + segment.end_s) / 2
    with av.open(str(clip)) as container:
        image = next(
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0) if frame.time >= middle_s
        )
    height, width = image.shape[:2]
    axes.imshow(image)
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
    """Draw the recognized words above the reference, over the unused audio."""
    end_s = sentences[-1]["words"][-1]["end_s"] + 0.6
    peaks = compute_audio_peaks(clip, end_s)[: int(end_s * PEAKS_PER_S)]
    times = np.arange(len(peaks)) / PEAKS_PER_S
    axes.fill_between(times, 0.45 + 0.4 * peaks, 0.45 - 0.4 * peaks, color=AUDIO_COLOUR, linewidth=0)
    for segment in (segment for segment in segments if segment.start_s < end_s):
        for word in segment.words:
            _draw_word(axes, word.start_s, word.end_s, 1.55, word.text, HYPOTHESIS_COLOUR, "white")
    for sentence in sentences:
        for word in sentence["words"]:
            _draw_word(axes, word["start_s"], word["end_s"], 1.0, word["text"], REFERENCE_COLOUR, TEXT_COLOUR)
    axes.set_xlim(0, end_s)
    axes.set_ylim(0, 2.1)
    axes.set_yticks([1.75, 1.2, 0.45], ["recognized\nfrom video only", "reference", "audio\n(not used)"])
    axes.set_xlabel("seconds")
    axes.tick_params(left=False, colors=TEXT_COLOUR)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_word(
    axes: Axes, start_s: float, end_s: float, bottom: float, text: str, fill: str, text_colour: str
) -> None:
    axes.add_patch(
        Rectangle((start_s, bottom), end_s - start_s, 0.4, facecolor=fill, edgecolor="white", linewidth=1)
    )
    axes.text(
        (start_s + end_s) / 2, bottom + 0.2, text, color=text_colour, ha="center", va="center", fontsize=11
    )


if __name__ == "__main__":
    main()
