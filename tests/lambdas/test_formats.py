"""Tests that the pipeline, the server, the API description and the page have the same list of formats."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media import formats
from gorggle_lambdas.media.container import open_media
from gorggle_lambdas.media.probe import probe
from gorggle_server.media import formats as server_formats
from tests.lambdas.moto_environment import Cloud

ROOT = Path(__file__).resolve().parents[2]
PAGE_TYPES = re.compile(r"const MEDIA_TYPES: Record<string, string> = \{(.*?)\n\};", re.DOTALL)


def test_the_pipeline_and_the_server_support_the_same_formats() -> None:
    assert tuple(container.demuxer for container in formats.CONTAINERS) == server_formats.CONTAINERS
    assert formats.VIDEO_CODECS == server_formats.VIDEO_CODECS
    assert formats.AUDIO_CODECS == server_formats.AUDIO_CODECS
    assert formats.CONTAINER_NAMES == server_formats.CONTAINER_NAMES


@pytest.mark.parametrize(
    "media_type", ["video/mp4", "video/x-m4v", "video/3gpp", "audio/webm", "audio/amr", "audio/aiff"]
)
def test_every_listed_media_type_can_be_uploaded(cloud: Cloud, media_type: str) -> None:
    assert cloud.api("create_upload", body={"content_type": media_type})[0] == 201


def test_the_openapi_document_lists_every_media_type() -> None:
    document = yaml.safe_load((ROOT / "lambdas" / "api" / "openapi.yaml").read_text())
    listed = document["components"]["schemas"]["UploadRequest"]["properties"]["content_type"]["enum"]
    assert len(listed) == len(set(listed))
    assert set(listed) == formats.MEDIA_TYPES


def test_the_page_sends_only_supported_media_types() -> None:
    match = PAGE_TYPES.search((ROOT / "clients" / "web" / "src" / "api.ts").read_text())
    assert match is not None
    sent = dict(re.findall(r'"?(\w+)"?: "((?:video|audio|application)/[\w.-]+)"', match[1]))
    assert len(sent) > 20
    assert set(sent.values()) <= formats.MEDIA_TYPES
    assert (sent["m4v"], sent["3gp"], sent["weba"]) == ("video/x-m4v", "video/3gpp", "audio/webm")


def write_clip(path: Path, video: str, audio: str = "") -> Path:
    """Write one second of grey frames in a video codec, with silence if an audio codec is given."""
    with av.open(str(path), "w") as output:
        video_stream: Any = output.add_stream(video, rate=5)
        video_stream.width, video_stream.height = 64, 48
        video_stream.pix_fmt = video_stream.codec_context.codec.video_formats[0].name
        audio_stream: Any = output.add_stream(audio, rate=16_000, layout="mono") if audio else None
        for shade in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * shade, np.uint8))
            output.mux(video_stream.encode(frame.reformat(format=video_stream.pix_fmt)))
        output.mux(video_stream.encode(None))
        if audio_stream is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
            silence.sample_rate = 16_000
            output.mux(audio_stream.encode(silence))
            output.mux(audio_stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["asv1", "snow", "flashsv"])
def test_unlisted_video_codecs_are_not_decoded(tmp_path: Path, codec: str) -> None:
    with write_clip(tmp_path / "both.avi", codec, "pcm_s16le").open("rb") as file:
        result = probe(file, tmp_path / "s.wav", 100.0)
    assert (result.video_codec, result.audio_codec) == ("", "pcm_s16le")
    with (
        write_clip(tmp_path / "alone.avi", codec).open("rb") as file,
        pytest.raises(InvalidMediaError, match="no video or audio stream"),
    ):
        probe(file, tmp_path / "s.wav", 100.0)


def test_an_unlisted_container_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("gif", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8)).reformat(format="rgb8")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with (
        path.open("rb") as file,
        pytest.raises(InvalidMediaError, match=r"expected a complete file in MP4, .* or AIFF"),
        open_media(file),
    ):
        pass
