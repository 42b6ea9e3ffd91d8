"""Sandboxed decoding yields the same results as in-process decoding, and a failure affects one stream only."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.input_format import MIN_FACE_WIDTH_PX
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.demuxer import StreamInfo, decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox.decoder_process import Scheduling, is_cpu_starved, read_scheduling
from gorggle_server.sandbox.decoding import decode_in_sandbox
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.sandbox.protocol import DecoderError
from gorggle_server.vision.frame_stage import PipelineItem, track_frames
from gorggle_server.vision.mouth_tracker import FrameResult
from tests.media.samples import LIMITS, clip
from tests.sandbox.helpers import (
    decoder_command,
    fake_decoder_command,
    get_decoder_pid,
    is_alive,
    make_pipe,
    make_pool,
    needs_proc,
    noisy_clip,
    partial_pipe,
    read_until_first_frame,
)
from tests.vision.synthetic_video import astronaut, encode_frames, face_detector, paint_picture
from tests.vision.test_end_to_end import SECONDS, encode_talking_head

INDEX_FIRST = (("movflags", "+faststart"),)
CLIPS = {
    "MP4, index at the end": clip,
    "MP4, index first, with a gap of two seconds": functools.partial(
        clip, times_s=(0.0, 0.04, 2.0, 2.04), options=INDEX_FIRST
    ),
    "WebM, live": functools.partial(clip, "webm", "libvpx-vp9", "libopus", options=(("live", "1"),)),
    "MPEG-TS": functools.partial(clip, "mpegts"),
    "MP3": functools.partial(clip, "mp3", None, "mp3"),
    "rotated": functools.partial(clip, "matroska", rotation=90, audio=None),
}


# ------------------------------------------------------------------------------------------------ equivalence to in-process decoding


def decode_in_process(
    data: bytes, limits: MediaLimits = LIMITS, *, live: bool = False, **options: bool
) -> list[PipelineItem]:
    """Return the results of decoding in this process."""
    items = resample(decode(make_pipe(data), limits, live=live, **options), limits)
    audio = options.get("audio", True)
    return list(track_frames(items, face_detector(), max_faces=4, audio=audio, live=live, face_identity=True))


def assert_same_items(items: list[PipelineItem], others: list[PipelineItem]) -> None:
    """Assert equality except for processing times."""
    for item, other in zip(items, others, strict=True):
        match item, other:
            case FrameResult(), FrameResult():
                assert _comparable_fields(item) == _comparable_fields(other)
                for mouth, other_mouth in zip(item.mouths, other.mouths, strict=True):
                    # The memory layout can change the order of summation, and thus the last bit.
                    assert mouth.speaking == pytest.approx(other_mouth.speaking, rel=1e-9)
                    for crop, other_crop in zip(mouth.crops, other_mouth.crops, strict=True):
                        assert crop.frame_index == other_crop.frame_index
                        np.testing.assert_array_equal(crop.pixels, other_crop.pixels)
                    assert (mouth.preview is None) == (other_mouth.preview is None)
                    if mouth.preview is not None:
                        np.testing.assert_array_equal(mouth.preview, other_mouth.preview)
            case Waveform(), Waveform():
                assert item.start == other.start
                assert item.samples.dtype == np.int16
                np.testing.assert_array_equal(item.samples, other.samples)
            case _:
                assert item == other


def _comparable_fields(result: FrameResult) -> list[object]:
    mouths = [
        (mouth.person, mouth.is_seen, mouth.box, mouth.has_ended, mouth.identity) for mouth in result.mouths
    ]
    return [result.index, result.faces, result.is_crowded, result.is_last, mouths]


@pytest.mark.parametrize("name", CLIPS)
def test_sandboxed_decoding_yields_the_same_items(name: str, pool: DecoderPool) -> None:
    data = CLIPS[name]()
    in_process, sandboxed = decode_in_process(data), list(decode_in_sandbox(pool, make_pipe(data), LIMITS))
    assert isinstance(sandboxed[0], StreamInfo)
    assert isinstance(sandboxed[-1], EndOfStream)
    assert_same_items(sandboxed, in_process)


@pytest.mark.parametrize("live", [False, True])
def test_sandboxed_face_tracking_yields_the_same_mouth_crops(live: bool, pool: DecoderPool) -> None:
    data = encode_talking_head((640, 480))
    sandboxed = list(decode_in_sandbox(pool, make_pipe(data), LIMITS, live=live))
    results = [item for item in sandboxed if isinstance(item, FrameResult)]
    assert [result.index for result in results] == list(range(SECONDS * 25 + 1))
    crops = [crop for result in results for mouth in result.mouths for crop in mouth.crops]
    assert [crop.frame_index for crop in crops] == list(range(SECONDS * 25))
    assert all(result.faces == 1 and result.elapsed_s > 0 for result in results[:-1])
    assert any(mouth.preview is not None for result in results for mouth in result.mouths) == live
    assert results[-1].is_last
    assert [mouth.has_ended for mouth in results[-1].mouths] == [True]
    assert_same_items(sandboxed, decode_in_process(data, live=live))


def test_a_small_face_in_4k_is_found_within_1_gib() -> None:
    frame, _ = paint_picture(astronaut(), (3840, 2160), MIN_FACE_WIDTH_PX)
    data = encode_frames([frame] * 13)
    pool = DecoderPool(memory_bytes=2**30)
    results = [
        item for item in decode_in_sandbox(pool, make_pipe(data), LIMITS) if isinstance(item, FrameResult)
    ]
    pool.close()
    assert [result.faces for result in results] == [1] * 13 + [0]
    assert sum(len(mouth.crops) for result in results for mouth in result.mouths) == 13


@pytest.mark.parametrize("options", [{"video": False}, {"audio": False}])
def test_unrequested_streams_are_not_decoded(options: dict[str, bool], pool: DecoderPool) -> None:
    in_process, sandboxed = (
        decode_in_process(clip(), **options),
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS, **options)),
    )
    assert [type(item) for item in sandboxed] == [type(item) for item in in_process]
    assert sandboxed[-1] == in_process[-1]


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"", LIMITS),
        (b"Dear Sir or Madam, \r\n" * 900, LIMITS),
        (bytes(100_000), LIMITS),
        (clip()[:-3000], LIMITS),
        (clip(), MediaLimits(max_spooled_bytes=5000)),
        (clip(), MediaLimits(max_duration_s=1.5)),
        (clip(), MediaLimits(max_frame_pixels=100 * 100)),
        (clip("mpegts"), MediaLimits(max_duration_s=0.5)),
        (clip("webm", "libvpx-vp9", "libopus", options=(("live", "1"),)), MediaLimits(max_duration_s=0.5)),
        (clip("avi", "asv1", None), LIMITS),
    ],
)
def test_invalid_media_raises_the_same_error(data: bytes, limits: MediaLimits, pool: DecoderPool) -> None:
    with pytest.raises((InvalidMediaError, OutOfRangeError)) as in_process:
        decode_in_process(data, limits)
    with pytest.raises((InvalidMediaError, OutOfRangeError)) as sandboxed:
        list(decode_in_sandbox(pool, make_pipe(data), limits))
    assert (type(sandboxed.value), str(sandboxed.value)) == (type(in_process.value), str(in_process.value))


def test_a_slow_consumer_blocks_the_writer(pool: DecoderPool) -> None:
    """The consumer reads one frame only, so that the pipe stays full."""
    data = noisy_clip(duration_s=4.0)
    pipe = BytePipe(64 * 2**10)
    written = bytearray()

    def write_until_abort() -> None:
        with contextlib.suppress(ConnectionResetError):
            for start in range(0, len(data), 4096):
                pipe.write(data[start : start + 4096])
                written.extend(data[start : start + 4096])

    writing = threading.Thread(target=write_until_abort)
    writing.start()
    items = decode_in_sandbox(pool, pipe, LIMITS)
    read_until_first_frame(items)
    time.sleep(0.3)
    assert len(written) < len(data) * 3 // 4
    items.close()
    pipe.abort(ConnectionResetError())
    writing.join(10)
    assert not writing.is_alive()


# ------------------------------------------------------------------------------------------------------ failures


@needs_proc
def test_a_killed_decoder_fails_its_stream_and_is_logged(
    pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS, request_id="stream-17")
    read_until_first_frame(items)
    pid = get_decoder_pid(pool)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InvalidMediaError, match=r"the decoder failed on this file \(signal SIGKILL\)"):
        list(items)
    assert not is_alive(pid)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"request stream-17: decoder process {pid} was killed by SIGKILL"


def test_other_streams_continue_when_a_decoder_dies(pool: DecoderPool) -> None:
    failing = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS)
    read_until_first_frame(failing)
    killed_pid = get_decoder_pid(pool)
    other = decode_in_sandbox(pool, make_pipe(clip()), LIMITS)
    items = [next(other), next(other)]
    os.kill(killed_pid, signal.SIGKILL)
    with pytest.raises(InvalidMediaError):
        list(failing)
    items += other
    assert isinstance(items[-1], EndOfStream)
    assert items[-1].frames == 50
    (*_, end) = decode_in_sandbox(pool, make_pipe(clip()), LIMITS)
    assert isinstance(end, EndOfStream)


def test_a_crash_in_a_native_library_is_reported_with_its_signal() -> None:
    pool = make_pool(decoder_command("reader.read(10); ctypes.string_at(0)"))
    with pytest.raises(InvalidMediaError, match="signal SIGSEGV"):
        list(decode_in_sandbox(pool, make_pipe(b"x" * 1000), LIMITS))
    pool.close()


@needs_proc
def test_a_stopped_decoder_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    pool = DecoderPool(timeout_s=0.5)
    items = decode_in_sandbox(pool, partial_pipe(noisy_clip()), LIMITS, request_id="stream-18")
    read_until_first_frame(items)
    pid = get_decoder_pid(pool)
    os.kill(pid, signal.SIGSTOP)
    start_s = time.monotonic()
    with pytest.raises(InvalidMediaError, match=r"decoding stalled: no output for 0\.5 s"):
        list(items)
    assert time.monotonic() - start_s < 5
    assert not is_alive(pid)
    assert "stream-18" in caplog.text
    pool.close()


def test_a_decoder_in_an_infinite_loop_is_killed() -> None:
    pool = make_pool(decoder_command("while True: pass"), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pool.close()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="requires /proc/self/schedstat")
def test_a_decoder_that_waits_for_the_cpu_is_not_stalled() -> None:
    # The decoder needs 0.1 s of CPU time and shares a CPU with eight busy processes.
    body = (
        "import os, time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass\nos._exit(3)"
    )
    pool = make_pool(decoder_command(body), timeout_s=0.3)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(8)
    ]
    try:
        with pytest.raises(DecoderError, match="exited with code 3"):
            list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    finally:
        os.sched_setaffinity(0, allowed)
        for process in busy:
            process.kill()
            process.wait()
    pool.close()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="requires /proc/self/schedstat")
def test_scheduling_tells_a_busy_process_from_a_sleeping_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        scheduling = read_scheduling(busy.pid)
        busy.kill()
    assert scheduling is not None
    assert scheduling.is_runnable
    assert scheduling.ran_s > 0
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        while (scheduling := read_scheduling(sleeping.pid)) is not None and scheduling.is_runnable:
            time.sleep(0.01)  # it has not executed `sleep` yet
        sleeping.kill()
    assert scheduling is not None
    assert read_scheduling(sleeping.pid) is None


@pytest.mark.parametrize(
    ("ran_s", "waited_s", "is_runnable", "is_starved"),
    [
        pytest.param(0.0, 0.0, True, True, id="waits since before: not counted yet"),
        pytest.param(0.1, 0.3, True, True, id="ran a little"),
        pytest.param(0.1, 0.3, False, True, id="ran a little, and ended"),
        pytest.param(0.5, 0.0, True, False, id="ran all the time"),
        pytest.param(0.0, 0.0, False, False, id="sleeps"),
    ],
)
def test_a_process_that_mostly_waits_for_a_cpu_is_starved(
    ran_s: float, waited_s: float, is_runnable: bool, is_starved: bool
) -> None:
    before = Scheduling(1.0, 2.0, is_runnable)
    after = Scheduling(1.0 + ran_s, 2.0 + waited_s, is_runnable)
    assert is_cpu_starved(before, after, interval_s=0.5) == is_starved


def test_a_pausing_client_is_not_a_stall() -> None:
    pool = DecoderPool(timeout_s=2.0)
    data = clip("mpegts")
    pipe = partial_pipe(data)

    def send_rest() -> None:
        time.sleep(2.5)  # longer than timeout_s
        pipe.write(data[len(data) * 3 // 4 :])
        pipe.close()

    sending = threading.Thread(target=send_rest)
    sending.start()
    (*_, end) = decode_in_sandbox(pool, pipe, LIMITS)
    sending.join()
    assert isinstance(end, EndOfStream)
    assert end.frames == 50
    pool.close()


def test_a_slow_server_is_not_a_stall() -> None:
    pool = DecoderPool(timeout_s=2.0)
    items = decode_in_sandbox(pool, make_pipe(clip()), LIMITS)
    read_until_first_frame(items)
    time.sleep(2.5)  # longer than timeout_s
    (*_, end) = items
    assert isinstance(end, EndOfStream)
    pool.close()


def test_exceeding_the_memory_limit_is_reported() -> None:
    allocate = "blocks = [bytearray(2**24) for _ in range(1000)]"
    pool = make_pool(decoder_command(allocate), memory_bytes=2**29)
    with pytest.raises(InvalidMediaError, match="more than the limit of 512 MiB"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_insufficient_decoder_memory_affects_only_its_own_stream() -> None:
    data = clip(audio=None, size=(3840, 2160), duration_s=0.4)
    pool = DecoderPool(memory_bytes=540 * 2**20)
    try:
        (*_, end) = decode_in_sandbox(pool, make_pipe(data), LIMITS)
    except InvalidMediaError:
        pass
    else:  # FFmpeg drops an image for which it cannot allocate memory
        assert isinstance(end, EndOfStream)
        assert end.broken_packets > 0
    assert isinstance([*decode_in_sandbox(pool, make_pipe(clip()), LIMITS)][-1], EndOfStream)
    pool.close()


def test_an_unexpected_error_message_omits_untrusted_input() -> None:
    pool = make_pool(decoder_command("raise KeyError(reader.read(20))"))
    with pytest.raises(DecoderError, match=r"KeyError in <string>, line \d+") as caught:
        list(decode_in_sandbox(pool, make_pipe(b"secret media"), LIMITS))
    assert "secret" not in str(caught.value)
    pool.close()


# ------------------------------------------------------------------------------------------------ fake decoders


@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, bytes(range(256)))",
        "os.write(1, b'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')",
        "send(MessageType.MOUTH, 0, 0, 3_600_000_000, 1)",
        "send(MessageType.READY)",
        "send(MessageType.END, 0, 0, 25)",
        "send(MessageType.AUDIO, 0, 0, 2)",
    ],
)
@needs_proc
def test_an_invalid_header_ends_the_stream_and_the_process(
    body: str, list_new_processes: Callable[[], set[int]]
) -> None:
    pool = make_pool(fake_decoder_command(f"{body}\nimport time; time.sleep(60)"))
    items = decode_in_sandbox(pool, make_pipe(clip()), LIMITS)
    with pytest.raises(DecoderError, match="the decoder process sent"):
        list(items)
    assert list_new_processes() == set()
    pool.close()


def test_a_process_that_requests_data_endlessly_after_the_end_is_killed() -> None:
    body = "while True: send(MessageType.DATA_REQUEST, 0, 0, 0, MAX_REQUEST_BYTES); os.read(0, 2**17)"
    pool = make_pool(fake_decoder_command(body), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    pool.close()


def test_a_process_that_does_not_read_requested_data_is_killed() -> None:
    body = "while True: send(MessageType.DATA_REQUEST, 0, 0, 0, MAX_REQUEST_BYTES)"
    pool = make_pool(fake_decoder_command(body), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, make_pipe(bytes(2**22)), LIMITS))
    pool.close()


def test_a_process_that_sends_a_header_byte_by_byte_is_killed() -> None:
    body = "import time\nfor _ in range(100): os.write(1, b'G'); time.sleep(0.2)"
    pool = make_pool(fake_decoder_command(body), timeout_s=0.5)
    start_s = time.monotonic()
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, make_pipe(clip()), LIMITS))
    assert time.monotonic() - start_s < 3
    pool.close()
