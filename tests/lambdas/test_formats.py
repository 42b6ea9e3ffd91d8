"""One list of what is taken: of the pipeline, the server, the API's description and the page."""

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
PAGE_TYPES = re.compile(r"const TYPES: Record<string, string> = \{(.*?)\n\};", re.DOTALL)


def test_the_pipeline_takes_what_the_server_reads_and_nothing_else() -> None:
    assert tuple(each.demuxer for each in formats.CONTAINERS) == server_formats.CONTAINERS
    assert formats.VIDEO_CODECS == server_formats.VIDEO_CODECS
    assert formats.AUDIO_CODECS == server_formats.AUDIO_CODECS
    assert formats.CONTAINER_NAMES == server_formats.CONTAINER_NAMES


@pytest.mark.parametrize(
    "kind", ["video/mp4", "video/x-m4v", "video/3gpp", "audio/webm", "audio/amr", "audio/aiff"]
)
def test_an_upload_is_taken_as_any_type_of_the_list(cloud: Cloud, kind: str) -> None:
    assert cloud.api("create_upload", body={"content_type": kind})[0] == 201


def test_the_api_s_description_lists_every_type() -> None:
    document = yaml.safe_load((ROOT / "lambdas" / "api" / "openapi.yaml").read_text())
    listed = document["components"]["schemas"]["UploadRequest"]["properties"]["content_type"]["enum"]
    assert len(listed) == len(set(listed))
    assert set(listed) == formats.MEDIA_TYPES


def test_the_page_sends_no_type_that_the_api_refuses() -> None:
    found = PAGE_TYPES.search((ROOT / "clients" / "web" / "src" / "api.ts").read_text())
    assert found is not None
    sent = dict(re.findall(r'"?(\w+)"?: "((?:video|audio|application)/[\w.-]+)"', found[1]))
    assert len(sent) > 20
    assert set(sent.values()) <= formats.MEDIA_TYPES
    assert (sent["m4v"], sent["3gp"], sent["weba"]) == ("video/x-m4v", "video/3gpp", "audio/webm")


def clip(path: Path, video: str, audio: str = "") -> Path:
    """A second of grey in some codec, and of silence in another."""
    with av.open(str(path), "w") as made:
        pictures: Any = made.add_stream(video, rate=5)
        pictures.width, pictures.height = 64, 48
        pictures.pix_fmt = pictures.codec_context.codec.video_formats[0].name
        sound: Any = made.add_stream(audio, rate=16_000, layout="mono") if audio else None
        for shade in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * shade, np.uint8))
            made.mux(pictures.encode(frame.reformat(format=pictures.pix_fmt)))
        made.mux(pictures.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
            silence.sample_rate = 16_000
            made.mux(sound.encode(silence))
            made.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("codec", ["asv1", "snow", "flashsv"])
def test_pictures_of_a_codec_outside_the_list_are_not_decoded(tmp_path: Path, codec: str) -> None:
    with clip(tmp_path / "both.avi", codec, "pcm_s16le").open("rb") as file:
        found = probe(file, tmp_path / "s.wav", 100.0)
    assert (found.video_codec, found.audio_codec) == ("", "pcm_s16le")
    with (
        clip(tmp_path / "alone.avi", codec).open("rb") as file,
        pytest.raises(InvalidMediaError, match="neither pictures nor sound"),
    ):
        probe(file, tmp_path / "s.wav", 100.0)


def test_a_container_outside_the_list_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    with av.open(str(path), "w") as made:
        stream: Any = made.add_stream("gif", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8)).reformat(format="rgb8")
        made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    with (
        path.open("rb") as file,
        pytest.raises(InvalidMediaError, match=r"expected MP4, .* or AIFF"),
        open_media(file),
    ):
        pass
