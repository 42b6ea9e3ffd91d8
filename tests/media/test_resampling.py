"""Resampling of frames and audio to one timeline: frame rates, gaps, delays and invalid timestamps."""

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
from tests.media.samples import BURSTS_S, LIMITS, DecodedClip, clip, find_onsets_s


@dataclass(frozen=True)
class FakeFrame:
    """Stand-in for a decoded FFmpeg frame."""

    width: int = 32
    height: int = 24


@dataclass(frozen=True, eq=False)
class NumberedFrame(VideoFrame):
    """A decoded frame with a uniform grey level equal to its number."""

    number: int = 0

    def to_grayscale(self) -> np.ndarray:
        return np.full((self.decoded.height, self.decoded.width), self.number % 256, np.uint8)


def make_frame(
    time_s: float | None, number: int = 0, *, duration_s: float = 0.0, decoded: Any = FakeFrame()
) -> NumberedFrame:
    return NumberedFrame(time_s, duration_s, decoded, 1.0, number)


def make_frames(rate: float, duration_s: float, start_s: float = 0.0) -> list[NumberedFrame]:
    return [
        make_frame(start_s + number / rate, number, duration_s=1 / rate)
        for number in range(round(rate * duration_s))
    ]


def make_audio(start_s: float, duration_s: float, level: int = 1000) -> list[AudioSamples]:
    """Return audio in chunks of 20 ms."""
    return [
        AudioSamples(start_s + chunk * 0.02, np.full(320, level, np.int16))
        for chunk in range(round(duration_s * 50))
    ]


def interleave(*streams: Iterable[Any]) -> list[Any]:
    return sorted(itertools.chain(*streams), key=lambda item: item.time_s)


def make_stream_info(**fields: Any) -> StreamInfo:
    return StreamInfo("test", "h264", "aac", decodes_video=True, decodes_audio=True, **fields)


ONLY_VIDEO = StreamInfo("test", "h264", decodes_video=True)
ONLY_AUDIO = StreamInfo("test", audio_codec="aac", decodes_audio=True)


def resample_items(
    items: Iterable[Any], first: StreamInfo | None = None, limits: MediaLimits = LIMITS
) -> list[TimelineItem]:
    decoded: Iterator[Decoded] = iter([first or make_stream_info(), *items, MediaEnd(0, truncated=False)])
    return list(resample(decoded, limits))


def get_gray_levels(items: list[TimelineItem]) -> list[int]:
    frames = [item for item in items if isinstance(item, GrayFrame)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [int(frame.pixels[0, 0]) for frame in frames]


def join_waveform(items: list[TimelineItem]) -> np.ndarray:
    chunks = [item for item in items if isinstance(item, Waveform)]
    ends = np.cumsum([len(chunk.samples) for chunk in chunks])
    assert [chunk.start for chunk in chunks] == [0, *ends[:-1].tolist()][: len(chunks)]
    return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in chunks)])


def get_end_of_stream(items: list[TimelineItem]) -> EndOfStream:
    assert isinstance(items[-1], EndOfStream)
    return items[-1]


@pytest.mark.parametrize("rate", [10, 24, 25, 30, 50, 60, 120, Fraction(30000, 1001)])
def test_each_output_frame_is_the_nearest_source_frame(rate: float) -> None:
    found = get_gray_levels(resample_items(make_frames(float(rate), 2.0), ONLY_VIDEO))
    assert len(found) == pytest.approx(50, abs=1)
    for frame, number in enumerate(found):
        distance_s = abs(number / rate - frame / 25)
        assert distance_s <= 0.5 / rate + 1e-9 or number == round(rate * 2.0) - 1


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60])
def test_resampling_keeps_the_duration_at_any_frame_rate(rate: int) -> None:
    decoded_clip = DecodedClip(clip(rate=rate))
    assert decoded_clip.end.frames == 50
    expected = [min(range(2 * rate), key=lambda number: abs(number / rate - k / 25)) for k in range(50)]
    assert np.abs(np.subtract(decoded_clip.numbers, expected)).max() <= (1 if rate in {50, 30, 60, 24} else 0)
    assert find_onsets_s(decoded_clip.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_jittered_25_fps_timestamps_neither_repeat_nor_drop_frames() -> None:
    rng = np.random.default_rng(0)
    jittered = [make_frame(number / 25 + rng.uniform(-0.004, 0.004), number) for number in range(200)]
    early_audio = make_audio(-0.021, 8.0)
    assert get_gray_levels(resample_items(interleave(jittered, early_audio))) == list(range(200))


def test_a_variable_frame_rate_is_resampled_by_timestamp() -> None:
    times_s = (0.0, 0.033, 0.1, 0.8, 0.84, 0.9, 1.5, 1.533, 1.96)
    decoded_clip = DecodedClip(
        clip("webm", "libvpx-vp9", "libopus", times_s=times_s, options=(("live", "1"),))
    )
    expected = [min(range(len(times_s)), key=lambda number: abs(times_s[number] - k / 25)) for k in range(50)]
    assert decoded_clip.numbers[: len(expected)] == expected[: len(decoded_clip.numbers)]
    assert find_onsets_s(decoded_clip.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_a_gap_is_filled_by_repeating_the_frame_without_copying() -> None:
    items = resample_items([make_frame(0.0, 1), make_frame(3.0, 2)], ONLY_VIDEO)
    frames = [item for item in items if isinstance(item, GrayFrame)]
    assert len({id(frame.pixels) for frame in frames}) == 2
    assert get_gray_levels(items).count(1) == 38


@pytest.mark.parametrize("delay_s", [0.2, 0.5, 3.0])
def test_delayed_audio_is_preceded_by_silence(delay_s: float) -> None:
    decoded_clip = DecodedClip(clip("matroska", audio="flac", audio_delay_s=delay_s))
    assert decoded_clip.numbers == list(range(50))
    assert find_onsets_s(decoded_clip.waveform) == pytest.approx(
        [start_s + delay_s for start_s in BURSTS_S], abs=0.03
    )


@pytest.mark.parametrize("delay_s", [0.2, 3.0])
def test_delayed_video_is_preceded_by_its_first_frame(delay_s: float) -> None:
    decoded_clip = DecodedClip(clip("matroska", audio="flac", video_delay_s=delay_s, duration_s=4.0))
    shift = round(delay_s * 25)
    assert decoded_clip.numbers == [0] * shift + list(range(100))
    assert find_onsets_s(decoded_clip.waveform) == pytest.approx(BURSTS_S, abs=0.03)


def test_time_zero_is_the_earliest_timestamp_of_both_streams() -> None:
    items = resample_items(interleave(make_frames(25, 1.0, start_s=10.4), make_audio(10.0, 2.0)))
    assert get_gray_levels(items)[:12] == [0] * 10 + [0, 1]
    assert len(join_waveform(items)) == 32_000


def test_slightly_early_audio_does_not_shift_the_frames() -> None:
    """In MPEG-TS, AAC starts 21 ms before the video; the frames must equal those of the same clip in MP4."""
    items = resample_items(interleave(make_frames(25, 2.0, start_s=1.0), make_audio(0.979, 2.0)))
    assert get_gray_levels(items) == list(range(50))
    assert len(join_waveform(items)) == pytest.approx(32_000 - 336, abs=1)


def test_start_times_from_the_header_avoid_buffering() -> None:
    decoded = iter([make_stream_info(video_start_s=0.0, audio_start_s=0.0), *make_frames(25, 10.0)])
    items = resample(decoded, LIMITS)
    assert isinstance(next(items), StreamInfo)
    next(items)
    assert len(list(decoded)) >= 247


def test_missing_audio_delays_frames_by_at_most_one_second() -> None:
    decoded = iter([make_stream_info(), *make_frames(25, 10.0)])
    items = resample(decoded, LIMITS)
    next(items)
    next(items)
    assert len(list(decoded)) == pytest.approx(250 - MAX_HELD_S * 25, abs=2)


def test_large_frames_are_not_buffered_for_late_audio() -> None:
    huge = FakeFrame(4096, 2304)
    decoded = iter(
        [make_stream_info(), *(make_frame(number / 25, number, decoded=huge) for number in range(50))]
    )
    items = resample(decoded, LIMITS)
    next(items)
    next(items)
    assert 50 - len(list(decoded)) <= MAX_HELD_PIXELS // (4096 * 2304) + 3


def test_forged_start_times_in_the_header_are_ignored() -> None:
    items = resample_items(
        interleave(make_frames(25, 2.0), make_audio(0.0, 2.0)),
        make_stream_info(video_start_s=0.0, audio_start_s=-1e6),
    )
    assert get_gray_levels(items) == list(range(50))


def test_audio_gaps_are_silent_and_overlaps_are_dropped() -> None:
    chunks = [*make_audio(0.0, 1.0), *make_audio(1.5, 0.5), *make_audio(1.9, 0.5, level=2000)]
    samples = join_waveform(resample_items(chunks, ONLY_AUDIO))
    assert len(samples) == round(2.4 * SAMPLE_RATE_HZ)
    assert (samples[16_000:24_000] == 0).all()
    assert (samples[24_000:32_000] == 1000).all()
    assert (samples[32_000:] == 2000).all()


def test_an_audio_gap_is_filled_in_chunks() -> None:
    items = resample_items([*make_audio(0.0, 0.2), *make_audio(50.0, 0.2)], ONLY_AUDIO)
    assert max(len(item.samples) for item in items if isinstance(item, Waveform)) <= SAMPLE_RATE_HZ
    assert len(join_waveform(items)) == round(50.2 * SAMPLE_RATE_HZ)


def test_a_still_frame_is_repeated_until_the_next_frame() -> None:
    items = resample_items(interleave([make_frame(0.0, 1), make_frame(200.0, 2)], make_audio(0.0, 201.0)))
    assert get_gray_levels(items).count(1) == 2501


@pytest.mark.parametrize("forged_s", [1e5, 1e12, -1e9, MAX_GAP_S + 5])
def test_a_forged_timestamp_affects_only_its_own_frame(forged_s: float) -> None:
    frames = make_frames(25, 4.0)
    frames[50] = make_frame(forged_s, 50)
    items = [make_stream_info(), *interleave(frames[:50], make_audio(0, 2.0)), frames[50]]
    items += interleave(frames[51:], make_audio(2.0, 2.0))
    found = resample_items(items[1:])
    assert len(get_gray_levels(found)) == pytest.approx(100, abs=2)
    assert get_gray_levels(found)[60:98] == list(range(60, 98))
    assert len(join_waveform(found)) == 64_000


def test_a_jump_of_both_timestamps_keeps_audio_and_video_in_sync() -> None:
    """A recording that was paused: its timestamps continue hours later."""
    before = interleave(make_frames(25, 2.0), make_audio(0, 2.0))
    after = interleave(
        [make_frame(7200 + number / 25, 100 + number) for number in range(50)],
        make_audio(7200, 2.0, level=2000),
    )
    items = resample_items([*before, *after])
    assert get_gray_levels(items) == [*range(50), *range(100, 150)]
    samples = join_waveform(items)
    assert len(samples) == 64_000
    assert (samples[32_000:] == 2000).all()


def test_timestamps_that_restart_at_zero_are_continued() -> None:
    part = interleave(make_frames(25, 2.0), make_audio(0, 2.0))
    items = resample_items([*part, *part, *part])
    assert len(get_gray_levels(items)) == 150
    assert len(join_waveform(items)) == 96_000


def test_out_of_order_frames_are_dropped() -> None:
    frames = make_frames(25, 2.0)
    frames[10], frames[12] = frames[12], frames[10]
    found = get_gray_levels(resample_items(frames, ONLY_VIDEO))
    assert len(found) == 50
    assert found[13:] == list(range(13, 50))


def test_frames_without_timestamps_are_consecutive() -> None:
    frames = [make_frame(None, number, duration_s=0.04) for number in range(50)]
    assert get_gray_levels(resample_items(frames, ONLY_VIDEO)) == list(range(50))


def test_a_size_change_in_mid_stream_keeps_the_output_size() -> None:
    frames = [
        make_frame(number / 25, 9, decoded=FakeFrame(32 * (1 + number // 25), 24)) for number in range(50)
    ]
    items = resample_items(frames, ONLY_VIDEO)
    assert {item.pixels.shape for item in items if isinstance(item, GrayFrame)} == {(24, 32)}


@pytest.mark.parametrize("items", [make_frames(25, 3.0), make_audio(0.0, 3.0)])
def test_media_longer_than_the_limit_is_rejected(items: list[Any]) -> None:
    with pytest.raises(OutOfRangeError, match=r"longer than the limit of 2\.5 s"):
        resample_items(items, limits=MediaLimits(max_duration_s=2.5))


def test_decoding_statistics_are_passed_on() -> None:
    items = list(resample(iter([ONLY_VIDEO, *make_frames(25, 1.0), MediaEnd(7, truncated=True)]), LIMITS))
    assert items[-1] == EndOfStream(frames=25, samples=0, broken_packets=7, truncated=True)


def test_media_without_decoded_streams_has_no_frames() -> None:
    end_of_stream = get_end_of_stream(resample_items([], StreamInfo("test", "h264", "aac")))
    assert (end_of_stream.frames, end_of_stream.samples) == (0, 0)


times = st.one_of(
    st.floats(-10, 10),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.sampled_from([0.0, 59.9, 60.1, -0.9, -1.1]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), times), max_size=40))
def test_arbitrary_timestamps_yield_contiguous_finite_output(
    stamps: list[tuple[bool, float]],
) -> None:
    items = [
        make_frame(time_s, number) if is_image else AudioSamples(time_s, np.ones(160, np.int16))
        for number, (is_image, time_s) in enumerate(stamps)
    ]
    found = resample_items(items)
    assert len(get_gray_levels(found)) <= (MAX_GAP_S + 1) * 25 * (len(items) + 1)
    assert len(join_waveform(found)) <= (MAX_GAP_S + 1) * SAMPLE_RATE_HZ * (len(items) + 1)


def test_memory_does_not_grow_with_the_duration() -> None:
    decoded = itertools.chain([ONLY_VIDEO], (make_frame(number / 25, number) for number in range(90_000)))
    tracemalloc.start()
    frames = sum(1 for item in resample(decoded, LIMITS) if isinstance(item, GrayFrame))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == pytest.approx(90_000, abs=2)
    assert peak_bytes < 200_000


def test_the_number_of_timestamp_offsets_is_limited() -> None:
    normalizer = TimestampNormalizer(0.0)
    for jump in range(100):
        placed_s = normalizer.normalize(normalizer.video, 1e6 * (jump + 1))
        normalizer.video.end_s = placed_s + 0.04
    assert normalizer.video.end_s == pytest.approx(4.0)


def test_long_audio_is_split_into_chunks_of_a_second() -> None:
    """One packet with a forged sample rate can contain minutes of audio."""
    level = np.arange(40_000, dtype=np.int16)
    decoded = [
        StreamInfo("test", "", "aac", decodes_audio=True, audio_start_s=0.0),
        AudioSamples(0.0, level),
        MediaEnd(0, truncated=False),
    ]
    chunks = [item for item in resample(decoded, LIMITS) if isinstance(item, Waveform)]
    assert [len(chunk.samples) for chunk in chunks] == [16_000, 16_000, 8_000]
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in chunks]), level)
    with pytest.raises(OutOfRangeError):
        list(resample(decoded, MediaLimits(max_duration_s=1.5)))
