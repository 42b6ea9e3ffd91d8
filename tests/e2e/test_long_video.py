"""A two-hour video through the distributed map, with a scripted server; the real one would take hours on a CPU."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest

from gorggle.v1 import lip_reading_pb2_grpc
from tests.e2e.pipeline import Certificates, GpuServer, running_pipeline
from tests.sdk import fake_service
from tests.sdk.fake_service import FakeLipReading

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]

HOURS = 2
DURATION_S = HOURS * 3600
# One word every ten seconds, at second 3, 13, 23, ….
WORD_INTERVAL_S, FIRST_WORD_S, WORD_S = 10.0, 3.0, 0.5


class ScriptedLipReading(FakeLipReading):
    """Reads a whole window and returns the scripted words between its start and end."""

    def StreamingRecognize(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        first = next(request_iterator)
        offset = first.config.recognition.start_offset
        start_s = offset.seconds + offset.nanos / 1e9
        yield fake_service.started()
        content = b"".join(request.media for request in request_iterator)
        end_s = start_s + get_duration_s(content)
        for number in range(
            max(0, math.floor(start_s / WORD_INTERVAL_S) - 1), math.ceil(end_s / WORD_INTERVAL_S) + 1
        ):
            at_s = number * WORD_INTERVAL_S + FIRST_WORD_S
            if start_s <= at_s and at_s + WORD_S <= min(end_s, DURATION_S):
                yield fake_service.segment(f"word{number}", start_s=at_s, end_s=at_s + WORD_S)
        yield fake_service.finished(end_s - start_s)


def get_duration_s(content: bytes) -> float:
    with av.open(io.BytesIO(content)) as container:
        times = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.pts is not None
        ]
    return max(times) - min(times) + 1.0


@pytest.fixture(scope="module")
def two_hour_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a video with one small frame per second and a quiet tone that pauses every ten seconds.

    The file is compressed, since moto reads the whole object for each range request.
    """
    path = tmp_path_factory.mktemp("long") / "long.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=1)
        video.width, video.height, video.gop_size = 64, 48, 10
        audio = container.add_stream("flac", rate=8000, layout="mono")
        image = np.zeros((48, 64, 3), np.uint8)
        tone = (300 * np.sin(np.arange(8000) * 2 * np.pi * 200 / 8000)).astype(np.int16)
        for second in range(DURATION_S):
            image[:, :, second % 3] = second % 200
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
            waveform = tone if second % 10 else np.zeros_like(tone)
            frame = av.AudioFrame.from_ndarray(waveform.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, second * 8000
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.fixture
def scripted_server_port(certificates: Certificates) -> Iterator[int]:
    """Run a scripted server with mutual TLS; yield its port."""
    credentials = grpc.ssl_server_credentials(
        [(certificates.server_key.read_bytes(), certificates.server.read_bytes())],
        root_certificates=certificates.ca.read_bytes(),
        require_client_auth=True,
    )
    with futures.ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        lip_reading_pb2_grpc.add_LipReadingServicer_to_server(ScriptedLipReading(), server)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield port
        server.stop(None).wait()


@pytest.mark.drill
def test_a_two_hour_video_contains_every_word_once(
    tmp_path: Path, certificates: Certificates, scripted_server_port: int, two_hour_video: Path
) -> None:
    settings = {"max_concurrent_windows": 4, "fleet_start_timeout_s": 60}
    with running_pipeline(
        tmp_path, GpuServer(certificates, scripted_server_port), certificates, **settings
    ) as pipeline:
        job_id = pipeline.upload(two_hour_video, lips="video", audio="none", faces="none")
        job = pipeline.wait_for_job(job_id, 500)
        assert job["state"] == "done", (job, pipeline.describe_failures())
        assert job["progress"]["windows"] == pytest.approx(120, abs=12)
        segments = pipeline.result(job_id)["segments"]
        texts = [word["text"] for segment in segments for word in segment["words"]]
        assert texts == [f"word{number}" for number in range(DURATION_S // 10)]
        objects = pipeline.list_job_objects(job_id)
        results = [name for name in objects if name.startswith("work/1/lips/")]
        assert len(results) == job["progress"]["windows"]
        assert not job["is_degraded"]
