"""Decoding in subprocesses yields the same results, and a failure affects one stream only."""

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
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.demuxer import StreamInfo, decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox.decoding import decode_in_sandbox
from gorggle_server.sandbox.pool import DecoderPool
from gorggle_server.sandbox.protocol import DecoderError
from gorggle_server.vision.frame_stage import PipelineItem, track_frames
from gorggle_server.vision.mouth_tracker import FrameResult
from tests.media.samples import LIMITS, clip
from tests.sandbox.helpers import (
    LIVE,
    decoder_that,
    impostor_that,
    is_alive,
    live,
    needs_proc,
    piped,
    pool_of,
    the_child,
    up_to_first_frame,
)
from tests.vision.synthetic_video import finder
from tests.vision.test_end_to_end import SECONDS, filmed

INDEX_FIRST = (("movflags", "+faststart"),)
CLIPS = {
    "MP4, index at the end": clip,
    "MP4, index first, a still of two seconds": functools.partial(
        clip, times_s=(0.0, 0.04, 2.0, 2.04), options=INDEX_FIRST
    ),
    "WebM, live": functools.partial(clip, "webm", "libvpx-vp9", "libopus", options=(("live", "1"),)),
    "MPEG-TS": functools.partial(clip, "mpegts"),
    "MP3": functools.partial(clip, "mp3", None, "mp3"),
    "turned": functools.partial(clip, "matroska", turned=90, audio=None),
}


# ------------------------------------------------------------------------------------------------ as in one process


def seen_here(
    data: bytes, limits: MediaLimits = LIMITS, *, live: bool = False, **choice: bool
) -> list[PipelineItem]:
    """Return the results of decoding in this process."""
    items = resample(decode(piped(data), limits, live=live, **choice), limits)
    return list(track_frames(items, finder(), max_faces=4, audio=choice.get("audio", True), live=live))


def assert_same(items: list[PipelineItem], others: list[PipelineItem]) -> None:
    """Assert equality except for processing times."""
    for item, other in zip(items, others, strict=True):
        match item, other:
            case FrameResult(), FrameResult():
                assert _numbers(item) == _numbers(other)
                for mouth, same in zip(item.mouths, other.mouths, strict=True):
                    # Sums of numbers that lie otherwise in memory may differ in their last bit.
                    assert mouth.speaking == pytest.approx(same.speaking, rel=1e-9)
                    for crop, same_crop in zip(mouth.crops, same.crops, strict=True):
                        assert crop.frame_index == same_crop.frame_index
                        np.testing.assert_array_equal(crop.pixels, same_crop.pixels)
                    assert (mouth.preview is None) == (same.preview is None)
                    if mouth.preview is not None:
                        np.testing.assert_array_equal(mouth.preview, same.preview)
            case Waveform(), Waveform():
                assert item.start == other.start
                assert item.samples.dtype == np.int16
                np.testing.assert_array_equal(item.samples, other.samples)
            case _:
                assert item == other


def _numbers(sight: FrameResult) -> list[object]:
    mouths = [(mouth.person, mouth.is_seen, mouth.box, mouth.has_ended) for mouth in sight.mouths]
    return [sight.index, sight.faces, sight.is_crowded, sight.is_last, mouths]


@pytest.mark.parametrize("name", CLIPS)
def test_the_same_comes_out_as_in_the_servers_process(name: str, pool: DecoderPool) -> None:
    data = CLIPS[name]()
    here, apart = seen_here(data), list(decode_in_sandbox(pool, piped(data), LIMITS))
    assert isinstance(apart[0], StreamInfo)
    assert isinstance(apart[-1], EndOfStream)
    assert_same(apart, here)


@pytest.mark.parametrize("live", [False, True])
def test_the_same_mouths_are_seen_as_in_the_servers_process(live: bool, pool: DecoderPool) -> None:
    data = filmed((640, 480))
    apart = list(decode_in_sandbox(pool, piped(data), LIMITS, live=live))
    sights = [item for item in apart if isinstance(item, FrameResult)]
    assert [sight.index for sight in sights] == list(range(SECONDS * 25 + 1))
    crops = [crop for sight in sights for mouth in sight.mouths for crop in mouth.crops]
    assert [crop.frame_index for crop in crops] == list(range(SECONDS * 25))
    assert all(sight.faces == 1 and sight.elapsed_s > 0 for sight in sights[:-1])
    assert any(mouth.preview is not None for sight in sights for mouth in sight.mouths) == live
    assert sights[-1].is_last
    assert [mouth.has_ended for mouth in sights[-1].mouths] == [True]
    assert_same(apart, seen_here(data, live=live))


@pytest.mark.parametrize("choice", [{"video": False}, {"audio": False}])
def test_what_is_not_asked_for_is_not_decoded(choice: dict[str, bool], pool: DecoderPool) -> None:
    here, apart = seen_here(clip(), **choice), list(decode_in_sandbox(pool, piped(clip()), LIMITS, **choice))
    assert [type(item) for item in apart] == [type(item) for item in here]
    assert apart[-1] == here[-1]


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
def test_what_is_refused_is_refused_in_the_same_words(
    data: bytes, limits: MediaLimits, pool: DecoderPool
) -> None:
    with pytest.raises((InvalidMediaError, OutOfRangeError)) as here:
        seen_here(data, limits)
    with pytest.raises((InvalidMediaError, OutOfRangeError)) as apart:
        list(decode_in_sandbox(pool, piped(data), limits))
    assert (type(apart.value), str(apart.value)) == (type(here.value), str(here.value))


def test_the_media_comes_in_as_it_is_needed(pool: DecoderPool) -> None:
    """The writer blocks because the reader takes one frame only."""
    data = LIVE(duration_s=4.0)
    pipe = BytePipe(64 * 2**10)
    written = bytearray()

    def write_until_refused() -> None:
        with contextlib.suppress(ConnectionResetError):
            for start in range(0, len(data), 4096):
                pipe.write(data[start : start + 4096])
                written.extend(data[start : start + 4096])

    writing = threading.Thread(target=write_until_refused)
    writing.start()
    items = decode_in_sandbox(pool, pipe, LIMITS)
    up_to_first_frame(items)
    time.sleep(0.3)
    assert len(written) < len(data) * 3 // 4
    items.close()
    pipe.abort(ConnectionResetError())
    writing.join(10)
    assert not writing.is_alive()


# ------------------------------------------------------------------------------------------------------ what fails


@needs_proc
def test_a_killed_decoder_fails_its_stream_with_a_reason_and_a_line_in_the_log(
    pool: DecoderPool, caplog: pytest.LogCaptureFixture
) -> None:
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS, request_id="stream-17")
    up_to_first_frame(items)
    pid = the_child(pool)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InvalidMediaError, match=r"the decoder failed on this file \(signal SIGKILL\)"):
        list(items)
    assert not is_alive(pid)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"request stream-17: decoder process {pid} was killed by SIGKILL"


def test_other_streams_continue_when_a_decoder_dies(pool: DecoderPool) -> None:
    broken = decode_in_sandbox(pool, live(LIVE()), LIMITS)
    up_to_first_frame(broken)
    victim = the_child(pool)
    other = decode_in_sandbox(pool, piped(clip()), LIMITS)
    seen = [next(other), next(other)]
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(InvalidMediaError):
        list(broken)
    seen += other
    assert isinstance(seen[-1], EndOfStream)
    assert seen[-1].frames == 50
    (*_, end) = decode_in_sandbox(pool, piped(clip()), LIMITS)
    assert isinstance(end, EndOfStream)


def test_a_crash_in_a_library_is_reported_by_its_signal() -> None:
    pool = pool_of(decoder_that("reader.read(10); ctypes.string_at(0)"))
    with pytest.raises(InvalidMediaError, match="signal SIGSEGV"):
        list(decode_in_sandbox(pool, piped(b"x" * 1000), LIMITS))
    pool.close()


@needs_proc
def test_a_decoder_that_stands_still_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    pool = DecoderPool(timeout_s=0.5)
    items = decode_in_sandbox(pool, live(LIVE()), LIMITS, request_id="stream-18")
    up_to_first_frame(items)
    pid = the_child(pool)
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(InvalidMediaError, match=r"decoding stalled: no output for 0\.5 s"):
        list(items)
    assert time.monotonic() - begun < 5
    assert not is_alive(pid)
    assert "stream-18" in caplog.text
    pool.close()


def test_a_decoder_that_runs_in_circles_is_killed() -> None:
    pool = pool_of(decoder_that("while True: pass"), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pool.close()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell who waits")
def test_a_decoder_that_gets_no_cpu_has_not_stalled() -> None:
    # Needs 0.1 s of CPU time, and shares a CPU with eight others.
    work = (
        "import os, time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass\nos._exit(3)"
    )
    pool = pool_of(decoder_that(work), timeout_s=0.3)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(8)
    ]
    try:
        with pytest.raises(DecoderError, match="exited with code 3"):
            list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    finally:
        os.sched_setaffinity(0, allowed)
        for process in busy:
            process.kill()
            process.wait()
    pool.close()


def test_a_pausing_client_is_not_a_stall() -> None:
    pool = DecoderPool(timeout_s=0.5)
    data = clip("mpegts")
    pipe = live(data)

    def finish() -> None:
        time.sleep(1.0)  # longer than timeout_s
        pipe.write(data[len(data) * 3 // 4 :])
        pipe.close()

    sending = threading.Thread(target=finish)
    sending.start()
    (*_, end) = decode_in_sandbox(pool, pipe, LIMITS)
    sending.join()
    assert isinstance(end, EndOfStream)
    assert end.frames == 50
    pool.close()


def test_a_slow_server_is_not_a_stall() -> None:
    pool = DecoderPool(timeout_s=0.5)
    items = decode_in_sandbox(pool, piped(clip()), LIMITS)
    up_to_first_frame(items)
    time.sleep(0.6)  # longer than timeout_s
    (*_, end) = items
    assert isinstance(end, EndOfStream)
    pool.close()


def test_memory_beyond_the_limit_is_refused_with_a_reason() -> None:
    eat = "eaten = [bytearray(2**24) for _ in range(1000)]"
    pool = pool_of(decoder_that(eat), memory_bytes=2**29)
    with pytest.raises(InvalidMediaError, match="more than the limit of 512 MiB"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")
def test_media_that_needs_more_memory_than_a_decoder_has_costs_its_stream_alone() -> None:
    data = clip(audio=None, size=(3840, 2160), duration_s=0.4)
    scarce = DecoderPool(memory_bytes=540 * 2**20)
    try:
        (*_, end) = decode_in_sandbox(scarce, piped(data), LIMITS)
    except InvalidMediaError:
        pass
    else:  # FFmpeg drops a image that it has no room for
        assert isinstance(end, EndOfStream)
        assert end.broken_packets > 0
    assert isinstance([*decode_in_sandbox(scarce, piped(clip()), LIMITS)][-1], EndOfStream)
    scarce.close()


def test_an_unexpected_error_is_internal_and_has_no_untrusted_input() -> None:
    pool = pool_of(decoder_that("raise KeyError(reader.read(20))"))
    with pytest.raises(DecoderError, match=r"KeyError in <string>, line \d+") as caught:
        list(decode_in_sandbox(pool, piped(b"secret media"), LIMITS))
    assert "secret" not in str(caught.value)
    pool.close()


# ------------------------------------------------------------------------------------------------ what is not a decoder


@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, bytes(range(256)))",
        "os.write(1, b'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')",
        "say(MessageType.MOUTH, 0, 0, 3_600_000_000, 1)",
        "say(MessageType.READY)",
        "say(MessageType.END, 0, 0, 25)",
        "say(MessageType.AUDIO, 0, 0, 2)",
    ],
)
@needs_proc
def test_a_false_header_ends_the_stream_with_an_internal_error_and_the_process(
    body: str, born: Callable[[], set[int]]
) -> None:
    pool = pool_of(impostor_that(f"{body}\nimport time; time.sleep(60)"))
    items = decode_in_sandbox(pool, piped(clip()), LIMITS)
    with pytest.raises(DecoderError, match="the decoder process sent"):
        list(items)
    assert born() == set()
    pool.close()


def test_a_process_that_asks_on_and_on_after_the_end_is_killed() -> None:
    asks = "while True: say(MessageType.DATA_REQUEST, 0, 0, 0, MAX_REQUEST_BYTES); os.read(0, 2**17)"
    pool = pool_of(impostor_that(asks), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    pool.close()


def test_a_process_that_asks_and_does_not_take_is_killed() -> None:
    asks = "while True: say(MessageType.DATA_REQUEST, 0, 0, 0, MAX_REQUEST_BYTES)"
    pool = pool_of(impostor_that(asks), timeout_s=0.5)
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, piped(bytes(2**22)), LIMITS))
    pool.close()


def test_a_process_that_sends_a_header_in_drops_is_killed() -> None:
    drips = "import time\nfor _ in range(100): os.write(1, b'G'); time.sleep(0.2)"
    pool = pool_of(impostor_that(drips), timeout_s=0.5)
    begun = time.monotonic()
    with pytest.raises(InvalidMediaError, match="stalled"):
        list(decode_in_sandbox(pool, piped(clip()), LIMITS))
    assert time.monotonic() - begun < 3
    pool.close()
