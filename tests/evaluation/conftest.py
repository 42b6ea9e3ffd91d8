"""Fixtures: a scripted server, manifests, and clips of tones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gorggle_evaluation.manifest import Entry, ReferenceWord
from tests.sdk.conftest import make_server, server, service, target

__all__ = ["make_server", "server", "service", "target"]

WriteManifest = Callable[..., Path]


@pytest.fixture
def write_manifest(tmp_path: Path) -> WriteManifest:
    """Return a function that writes a manifest next to the files a.mp4, b.mp4 and c.mp4."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(f"media {name}".encode())

    def write(*lines: dict[str, Any] | str, name: str = "manifest.jsonl") -> Path:
        path = tmp_path / name
        path.write_text(
            "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
        )
        return path

    return write


def make_entry(media: Path) -> Entry:
    return Entry(media.name, media, (ReferenceWord("word"),))


def write_audio_file(path: Path, waveform: np.ndarray) -> Path:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None].astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def tones(tmp_path: Path) -> list[Entry]:
    """Write four clips with one tone each, of different frequencies, surrounded by silence."""
    times_s = np.arange(24_000) / 16_000
    is_tone = (times_s > 0.4) & (times_s < 1.1)
    return [
        make_entry(
            write_audio_file(
                tmp_path / f"{frequency_hz}.wav", 4000 * is_tone * np.sin(2 * np.pi * frequency_hz * times_s)
            )
        )
        for frequency_hz in (500, 1000, 2000, 3000)
    ]
