"""Frames and audio put on one time: rates, gaps, delays, and clocks that lie."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.errors import OutOfRangeError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.audio_resampler import AudioSamples
from gorggle_server.media.demuxer import Decoded, MediaEnd, StreamInfo
from gorggle_server.media.packet_decoders import VideoFrame
from gorggle_server.media.resampling import (
    MAX_HELD_PIXELS,
    MAX_HELD_S,
    EndOfStream,
    GrayFrame,
    TimelineItem,
    Waveform,
    resample,
)
from gorggle_server.media.timestamps import MAX_GAP_S, TimestampNormalizer
from gorggle_server.recognition_options import MediaLimits
from tests.media.samples import BURSTS_S, LIMITS, Seen, clip, onsets_s


@dataclass(frozen=True)
class Surface:
    """Stands for FFmpeg's image."""

    width: int = 32
    height: int = 24


@dataclass(frozen=True, eq=False)
class Image(VideoFrame):
    """A decoded image that is grey all over, in the level of its number."""

    number: int = 0

    def to_grayscale(self) -> np.ndarray:
        return np.full((self.decoded.height, self.decoded.width), self.number % 256, np.uint8)


def image(
    time_s: float | None, number: int = 0, *, duration_s: float = 0.0, surface: Any = Surface()
) -> Image:
    return Image(time_s, duration_s, surface, 1.0, number)


def images(rate: float, duration_s: float, start_s: float = 0.0) -> list[Image]:
    return [
        image(start_s + number / rate, number, duration_s=1 / rate)
        for number in range(round(rate * duration_s))
    ]


def audio(start_s: float, duration_s: float, level: int = 1000) -> list[AudioSamples]:
    """Audio in pieces of 20 ms."""
    return [
        AudioSamples(start_s + piece * 0.02, np.full(320, level, np.int16))
        for piece in range(round(duration_s * 50))
    ]


def interleaved(*streams: Iterable[Any]) -> list[Any]:
    return sorted(itertools.chain(*streams), key=lambda item: item.time_s)


def info(**known: Any) -> StreamInfo:
    return StreamInfo("test", "h264", "aac", decodes_video=True, decodes_audio=True, **known)


ONLY_VIDEO = StreamInfo("test", "h264", decodes_video=True)
ONLY_AUDIO = StreamInfo("test", audio_codec="aac", decodes_audio=True)


def timed(
    items: Iterable[Any], first: StreamInfo | None = None, limits: MediaLimits = LIMITS
) -> list[TimelineItem]:
    whole: Iterator[Decoded] = iter([first or info(), *items, MediaEnd(0, truncated=False)])
    return list(resample(whole, limits))


def levels(items: list[TimelineItem]) -> list[int]:
    frames = [item for item in items if isinstance(item, GrayFrame)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [int(frame.pixels[0, 0]) for frame in frames]


def waveform(items: list[TimelineItem]) -> np.ndarray:
    pieces = [item for item in items if isinstance(item, Waveform)]
    ends = np.cumsum([len(piece.samples) for piece in pieces])
    assert [piece.start for piece in pieces] == [0, *ends[:-1].tolist()][: len(pieces)]
    return np.concatenate([np.zeros(0, np.int16), *(piece.samples for piece in pieces)])


def end(items: list[TimelineItem]) -> EndOfStream:
    assert isinstance(items[-1], EndOfStream)
    return items[-1]


@pytest.mark.parametrize("rate", [10, 24, 25, 30, 50, 60, 120, Fraction(30000, 1001)])
def test_each_frame_is_the_source_image_nearest_in_time(rate: float) -> None:
    found = levels(timed(images(float(rate), 2.0), ONLY_VIDEO))
    assert len(found) == pytest.approx(50, abs=1)
    for frame, number in enumerate(found):
        distance_s = abs(number / rate - frame / 25)
        assert distance_s <= 0.5 / rate + 1e-9 or number == round(rate * 2.0) - 1


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60])
def test_files_of_any_frame_rate_last_as_long_as_they_do(rate: int) -> None:
    seen = Seen(clip(rate=rate))
    assert seen.end.frames == 50
    expected = [min(range(2 * rate), key=lambda number: abs(number / rate - k / 25)) for k in range(50)]
    assert np.abs(np.subtract(seen.numbers, expected)).max() <= (1 if rate in {50, 30, 60, 24} else 0)
    assert onsets_s(seen.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_rounded_timestamps_of_25_frames_a_second_neither_double_nor_drop_a_frame() -> None:
    rng = np.random.default_rng(0)
    jittered = [image(number / 25 + rng.uniform(-0.004, 0.004), number) for number in range(200)]
    audio_first = audio(-0.021, 8.0)
    assert levels(timed(interleaved(jittered, audio_first))) == list(range(200))


def test_a_variable_frame_rate_is_followed_by_time() -> None:
    times_s = (0.0, 0.033, 0.1, 0.8, 0.84, 0.9, 1.5, 1.533, 1.96)
    seen = Seen(clip("webm", "libvpx-vp9", "libopus", times_s=times_s, options=(("live", "1"),)))
    expected = [min(range(len(times_s)), key=lambda number: abs(times_s[number] - k / 25)) for k in range(50)]
    assert seen.numbers[: len(expected)] == expected[: len(seen.numbers)]
    assert onsets_s(seen.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_a_gap_is_filled_with_the_same_array() -> None:
    items = timed([image(0.0, 1), image(3.0, 2)], ONLY_VIDEO)
    frames = [item for item in items if isinstance(item, GrayFrame)]
    assert len({id(frame.pixels) for frame in frames}) == 2
    assert levels(items).count(1) == 38


@pytest.mark.parametrize("delay_s", [0.2, 0.5, 3.0])
def test_late_audio_begins_late(delay_s: float) -> None:
    seen = Seen(clip("matroska", audio="flac", audio_delay_s=delay_s))
    assert seen.numbers == list(range(50))
    assert onsets_s(seen.waveform) == pytest.approx([start_s + delay_s for start_s in BURSTS_S], abs=0.03)


@pytest.mark.parametrize("delay_s", [0.2, 3.0])
def test_late_images_begin_late_and_the_first_stands_before_them(delay_s: float) -> None:
    seen = Seen(clip("matroska", audio="flac", video_delay_s=delay_s, duration_s=4.0))
    shift = round(delay_s * 25)
    assert seen.numbers == [0] * shift + list(range(100))
    assert onsets_s(seen.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_zero_is_the_earliest_first_timestamp_of_both() -> None:
    items = timed(interleaved(images(25, 1.0, start_s=10.4), audio(10.0, 2.0)))
    assert levels(items)[:12] == [0] * 10 + [0, 1]
    assert len(waveform(items)) == 32_000


def test_audio_that_begins_a_little_early_does_not_move_the_frames() -> None:
    """AAC begins 21 ms before the image in MPEG-TS: the frames must be those of the same clip in MP4."""
    items = timed(interleaved(images(25, 2.0, start_s=1.0), audio(0.979, 2.0)))
    assert levels(items) == list(range(50))
    assert len(waveform(items)) == pytest.approx(32_000 - 336, abs=1)


def test_a_start_that_the_header_tells_is_not_waited_for() -> None:
    decoded = iter([info(video_start_s=0.0, audio_start_s=0.0), *images(25, 10.0)])
    items = resample(decoded, LIMITS)
    assert isinstance(next(items), StreamInfo)
    next(items)
    assert len(list(decoded)) >= 247


def test_audio_that_never_comes_is_waited_for_no_longer_than_a_second() -> None:
    decoded = iter([info(), *images(25, 10.0)])
    items = resample(decoded, LIMITS)
    next(items)
    next(items)
    assert len(list(decoded)) == pytest.approx(250 - MAX_HELD_S * 25, abs=2)


def test_large_images_are_not_held_in_numbers_for_late_audio() -> None:
    huge = Surface(4096, 2304)
    decoded = iter([info(), *(image(number / 25, number, surface=huge) for number in range(50))])
    items = resample(decoded, LIMITS)
    next(items)
    next(items)
    assert 50 - len(list(decoded)) <= MAX_HELD_PIXELS // (4096 * 2304) + 3


def test_a_start_that_the_header_forges_is_not_believed() -> None:
    items = timed(interleaved(images(25, 2.0), audio(0.0, 2.0)), info(video_start_s=0.0, audio_start_s=-1e6))
    assert levels(items) == list(range(50))


def test_gaps_in_the_audio_are_silent_and_overlaps_are_dropped() -> None:
    pieces = [*audio(0.0, 1.0), *audio(1.5, 0.5), *audio(1.9, 0.5, level=2000)]
    heard = waveform(timed(pieces, ONLY_AUDIO))
    assert len(heard) == round(2.4 * SAMPLE_RATE_HZ)
    assert (heard[16_000:24_000] == 0).all()
    assert (heard[24_000:32_000] == 1000).all()
    assert (heard[32_000:] == 2000).all()


def test_a_gap_of_audio_is_filled_in_chunks() -> None:
    items = timed([*audio(0.0, 0.2), *audio(50.0, 0.2)], ONLY_AUDIO)
    assert max(len(item.samples) for item in items if isinstance(item, Waveform)) <= SAMPLE_RATE_HZ
    assert len(waveform(items)) == round(50.2 * SAMPLE_RATE_HZ)


def test_a_still_image_under_long_audio_stands_as_long_as_it_is_shown() -> None:
    items = timed(interleaved([image(0.0, 1), image(200.0, 2)], audio(0.0, 201.0)))
    assert levels(items).count(1) == 2501


@pytest.mark.parametrize("forged_s", [1e5, 1e12, -1e9, MAX_GAP_S + 5])
def test_one_forged_timestamp_does_not_emit_frames_without_end_nor_upset_the_rest(forged_s: float) -> None:
    shown = images(25, 4.0)
    shown[50] = image(forged_s, 50)
    items = [info(), *interleaved(shown[:50], audio(0, 2.0)), shown[50]]
    items += interleaved(shown[51:], audio(2.0, 2.0))
    found = timed(items[1:])
    assert len(levels(found)) == pytest.approx(100, abs=2)
    assert levels(found)[60:98] == list(range(60, 98))
    assert len(waveform(found)) == 64_000


def test_when_both_clocks_leap_images_and_audio_stay_in_step() -> None:
    """A recording that was stopped and continued: its timestamps continue hours later."""
    before = interleaved(images(25, 2.0), audio(0, 2.0))
    after = interleaved(
        [image(7200 + number / 25, 100 + number) for number in range(50)], audio(7200, 2.0, level=2000)
    )
    items = timed([*before, *after])
    assert levels(items) == [*range(50), *range(100, 150)]
    heard = waveform(items)
    assert len(heard) == 64_000
    assert (heard[32_000:] == 2000).all()


def test_a_clock_reset_to_zero_is_continued() -> None:
    again = interleaved(images(25, 2.0), audio(0, 2.0))
    items = timed([*again, *again, *again])
    assert len(levels(items)) == 150
    assert len(waveform(items)) == 96_000


def test_images_out_of_order_are_dropped() -> None:
    shown = images(25, 2.0)
    shown[10], shown[12] = shown[12], shown[10]
    found = levels(timed(shown, ONLY_VIDEO))
    assert len(found) == 50
    assert found[13:] == list(range(13, 50))


def test_images_without_times_follow_each_other() -> None:
    shown = [image(None, number, duration_s=0.04) for number in range(50)]
    assert levels(timed(shown, ONLY_VIDEO)) == list(range(50))


def test_a_change_of_size_in_mid_stream_does_not_change_the_frames_size() -> None:
    shown = [image(number / 25, 9, surface=Surface(32 * (1 + number // 25), 24)) for number in range(50)]
    items = timed(shown, ONLY_VIDEO)
    assert {item.pixels.shape for item in items if isinstance(item, GrayFrame)} == {(24, 32)}


@pytest.mark.parametrize("items", [images(25, 3.0), audio(0.0, 3.0)])
def test_media_beyond_the_limit_of_length_is_refused(items: list[Any]) -> None:
    with pytest.raises(OutOfRangeError, match=r"longer than the limit of 2\.5 s"):
        timed(items, limits=MediaLimits(max_duration_s=2.5))


def test_how_the_decoding_went_is_passed_on() -> None:
    items = list(resample(iter([ONLY_VIDEO, *images(25, 1.0), MediaEnd(7, truncated=True)]), LIMITS))
    assert items[-1] == EndOfStream(frames=25, samples=0, broken_packets=7, truncated=True)


def test_media_in_which_nothing_is_to_be_decoded_has_no_frames() -> None:
    nothing = end(timed([], StreamInfo("test", "h264", "aac")))
    assert (nothing.frames, nothing.samples) == (0, 0)


times = st.one_of(
    st.floats(-10, 10),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.sampled_from([0.0, 59.9, 60.1, -0.9, -1.1]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), times), max_size=40))
def test_whatever_the_timestamps_frames_and_audio_have_no_gap_and_an_end(
    stamps: list[tuple[bool, float]],
) -> None:
    items = [
        image(time_s, number) if is_image else AudioSamples(time_s, np.ones(160, np.int16))
        for number, (is_image, time_s) in enumerate(stamps)
    ]
    found = timed(items)
    assert len(levels(found)) <= (MAX_GAP_S + 1) * 25 * (len(items) + 1)
    assert len(waveform(found)) <= (MAX_GAP_S + 1) * SAMPLE_RATE_HZ * (len(items) + 1)


def test_an_hour_of_video_takes_the_memory_of_a_moment() -> None:
    whole = itertools.chain([ONLY_VIDEO], (image(number / 25, number) for number in range(90_000)))
    tracemalloc.start()
    frames = sum(1 for item in resample(whole, LIMITS) if isinstance(item, GrayFrame))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == pytest.approx(90_000, abs=2)
    assert peak_bytes < 200_000


def test_a_clock_forgets_the_oldest_of_many_offsets() -> None:
    clock = TimestampNormalizer(0.0)
    for leap in range(100):
        placed_s = clock.normalize(clock.video, 1e6 * (leap + 1))
        clock.video.end_s = placed_s + 0.04
    assert clock.video.end_s == pytest.approx(4.0)


def test_long_audio_is_split_into_chunks_of_a_second() -> None:
    """One packet of a forged rate can hold minutes."""
    level = np.arange(40_000, dtype=np.int16)
    decoded = [
        StreamInfo("test", "", "aac", decodes_audio=True, audio_start_s=0.0),
        AudioSamples(0.0, level),
        MediaEnd(0, truncated=False),
    ]
    pieces = [item for item in resample(decoded, LIMITS) if isinstance(item, Waveform)]
    assert [len(piece.samples) for piece in pieces] == [16_000, 16_000, 8_000]
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces]), level)
    with pytest.raises(OutOfRangeError):
        list(resample(decoded, MediaLimits(max_duration_s=1.5)))
