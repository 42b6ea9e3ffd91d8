"""Replacement of audio tracks, and noise conditions of clips."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from gorggle_evaluation.conditions import NoiseCondition, NoiseMixer, build_conditions
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.media import Audio, Clip, MediaError, read_audio, replace_audio
from gorggle_evaluation.noise import NoiseKind, detect_speech
from tests.clips import cut_demo, remux, transcode
from tests.evaluation.conftest import make_entry, write_audio_file

DEMO = Path(__file__).parents[2] / "examples" / "demo.mp4"


def decode_frames(file: str | io.BytesIO) -> list[tuple[float, bytes]]:
    with av.open(file) as container:
        return [
            (round(float(frame.time), 3), frame.to_ndarray().tobytes()) for frame in container.decode(video=0)
        ]


def read_video_packets(file: str | io.BytesIO) -> list[bytes]:
    with av.open(file) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encode two seconds of the demo."""
    return transcode(DEMO, tmp_path_factory.mktemp("media") / "short.mp4", max_s=2)


@pytest.fixture(params=["mp4", "mpegts", "webm", "rotated", "reordered frames in Matroska"])
def clip(request: pytest.FixtureRequest, short_clip: Path, tmp_path: Path) -> Path:
    match request.param:
        case "mpegts":
            return remux(short_clip, tmp_path / "clip.ts", "mpegts")
        case "webm":
            codecs = {"container": "webm", "video_codec": "libvpx-vp9", "audio_codec": "libopus"}
            return transcode(DEMO, tmp_path / "clip.webm", max_s=1, **codecs)
        case "rotated":
            return transcode(DEMO, tmp_path / "clip.mp4", rotation_degrees=90, max_s=1)
        case "reordered frames in Matroska":
            return remux(cut_demo(tmp_path, sentence_count=1), tmp_path / "clip.mkv", "matroska")
    return short_clip


def test_replacing_the_audio_keeps_the_frames_and_their_timestamps(clip: Path) -> None:
    audio = read_audio(clip)
    other = Audio(np.arange(len(audio.waveform), dtype=np.int16), audio.start_s)
    result = replace_audio(clip, other).source
    assert decode_frames(io.BytesIO(result)) == decode_frames(str(clip))
    with av.open(io.BytesIO(result)) as container, av.open(str(clip)) as source:
        assert container.streams.audio[0].codec.name == "pcm_s16le"
        assert container.streams.video[0].codec.name == source.streams.video[0].codec.name
        assert next(container.decode(video=0)).rotation == next(source.decode(video=0)).rotation


def test_video_packets_are_copied(short_clip: Path) -> None:
    assert read_video_packets(
        io.BytesIO(replace_audio(short_clip, read_audio(short_clip)).source)
    ) == read_video_packets(str(short_clip))


def test_the_replaced_audio_is_unchanged(clip: Path, tmp_path: Path) -> None:
    audio = read_audio(clip)
    (tmp_path / "result.mkv").write_bytes(replace_audio(clip, audio).source)
    decoded = read_audio(tmp_path / "result.mkv")
    np.testing.assert_array_equal(decoded.waveform, audio.waveform)
    assert decoded.start_s == pytest.approx(audio.start_s, abs=0.001)


def test_the_audio_is_aligned_with_the_frames(short_clip: Path) -> None:
    result = replace_audio(short_clip, read_audio(short_clip)).source
    with av.open(io.BytesIO(result)) as container:
        order = [(p.stream.type, float(p.dts * p.time_base)) for p in container.demux() if p.size]
    last_audio_s = 0.0
    for kind, time_s in order:
        last_audio_s = time_s if kind == "audio" else last_audio_s
        assert kind == "audio" or abs(time_s - last_audio_s) < 0.3


def test_leading_hidden_frames_delay_the_whole_clip(short_clip: Path, tmp_path: Path) -> None:
    early = tmp_path / "early.mp4"
    with av.open(str(short_clip)) as source, av.open(str(early), "w", format="mp4") as result:
        streams = {stream.index: result.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                shift = round(0.4 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream.index]
                result.mux(packet)
    original_frames = decode_frames(str(early))
    assert len(original_frames) == 40
    result_clip = replace_audio(early, read_audio(early))
    new_frames = decode_frames(io.BytesIO(result_clip.source))
    assert result_clip.offset_s == pytest.approx(0.4)
    assert len(new_frames) == 50
    assert [frame for _, frame in new_frames[10:]] == [frame for _, frame in original_frames]
    times_s = [time_s - result_clip.offset_s for time_s, _ in new_frames[10:]]
    assert times_s == pytest.approx([time_s for time_s, _ in original_frames], abs=0.001)
    (tmp_path / "result.mkv").write_bytes(result_clip.source)
    decoded = read_audio(tmp_path / "result.mkv")
    assert decoded.start_s - result_clip.offset_s == pytest.approx(read_audio(early).start_s, abs=0.001)


def test_the_audio_of_audio_only_clips_can_be_replaced(tmp_path: Path) -> None:
    path = transcode(DEMO, tmp_path / "audio.mka", container="matroska", video_codec=None, max_s=1)
    result = replace_audio(path, read_audio(path)).source
    with av.open(io.BytesIO(result)) as container:
        assert [stream.type for stream in container.streams] == ["audio"]


def test_a_gap_in_the_audio_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "gap.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (0, 32_000):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 16_000), 900, np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform = read_audio(path).waveform
    assert len(waveform) == 48_000
    assert not waveform[16_000:32_000].any()
    assert (waveform[32_000:] == 900).all()
    assert len(read_audio(path, max_duration_s=0.5).waveform) == 8_000


def test_an_undecodable_clip_or_one_without_audio_is_refused(short_clip: Path, tmp_path: Path) -> None:
    silent = transcode(DEMO, tmp_path / "silent.mp4", audio_codec=None, max_s=1)
    with pytest.raises(MediaError, match="has no audio"):
        read_audio(silent)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_audio(tmp_path / "text.mp4")
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_audio(tmp_path / "missing.mp4")


# ---------------------------------------------------------------------------------------------------------- conditions


def split_noise(clip: Clip, clean: Path, tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the clean audio and the added noise."""
    assert isinstance(clip.source, bytes)
    (tmp_path / "noisy.mkv").write_bytes(clip.source)
    decoded, waveform = read_audio(tmp_path / "noisy.mkv").waveform.astype(float), read_audio(clean).waveform
    return waveform.astype(float), decoded - waveform


@pytest.mark.parametrize("kind", list(NoiseKind))
def test_noise_has_the_requested_ratio(kind: NoiseKind, tones: list[Entry], tmp_path: Path) -> None:
    clip = NoiseMixer(tones, seed=1).mix(tones[0], NoiseCondition(kind, 5.0))
    clean, added = split_noise(clip, tones[0].media, tmp_path)
    speech = detect_speech(clean.astype(np.int16))
    assert 0.6 < speech.mean() * 1.5 < 0.8
    ratio_db = 10 * np.log10(np.mean(clean[speech] ** 2) / np.mean(added[speech] ** 2))
    assert ratio_db == pytest.approx(5.0, abs=0.05)


def test_babble_contains_all_other_clips_but_not_the_clip_itself(tones: list[Entry], tmp_path: Path) -> None:
    clip = NoiseMixer(tones, seed=1).mix(tones[1], NoiseCondition(NoiseKind.BABBLE, 0.0))
    _, added = split_noise(clip, tones[1].media, tmp_path)
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    shares = [
        spectrum[round(hz * 1.5) - 40 : round(hz * 1.5) + 40].sum() / spectrum.sum()
        for hz in (500, 1000, 2000, 3000)
    ]
    assert shares[1] < 0.01
    assert min(shares[0], shares[2], shares[3]) > 0.2


def test_noise_depends_on_clip_and_seed_only(tones: list[Entry], tmp_path: Path) -> None:
    def extract_noise(seed: int, entry: Entry, snr_db: float) -> np.ndarray:
        clip = NoiseMixer(tones, seed).mix(entry, NoiseCondition(NoiseKind.WHITE, snr_db))
        return split_noise(clip, entry.media, tmp_path)[1]

    first = extract_noise(1, tones[0], 0.0)
    np.testing.assert_array_equal(extract_noise(1, tones[0], 0.0), first)
    assert np.corrcoef(extract_noise(1, tones[0], 10.0), first)[0, 1] > 0.999
    assert abs(np.corrcoef(extract_noise(2, tones[0], 0.0), first)[0, 1]) < 0.1
    assert abs(np.corrcoef(extract_noise(1, tones[1], 0.0), first)[0, 1]) < 0.1


def test_clean_clips_are_sent_unchanged(tones: list[Entry]) -> None:
    assert NoiseMixer(tones, 0).mix(tones[0], NoiseCondition()).source == tones[0].media


def test_babble_skips_clips_without_usable_audio(tones: list[Entry], tmp_path: Path) -> None:
    broken, silent = tmp_path / "broken.wav", write_audio_file(tmp_path / "silent.wav", np.zeros(16_000))
    broken.write_text("no audio")
    babble = NoiseCondition(NoiseKind.BABBLE, 0.0)
    assert NoiseMixer([tones[0], make_entry(broken), tones[1]], 0).mix(tones[0], babble)
    with pytest.raises(MediaError, match="no other clip of the manifest has audio"):
        NoiseMixer([tones[0], make_entry(broken), make_entry(silent)], 0).mix(tones[0], babble)
    with pytest.raises(MediaError, match="is silent"):
        NoiseMixer(tones, 0).mix(make_entry(silent), babble)


def test_video_only_conditions_have_no_noise() -> None:
    conditions = build_conditions(("video", "av"), [NoiseKind.BABBLE], [10.0, -5.0])
    assert [condition.name for condition in conditions] == [
        "audio-visual, clean",
        "video only, clean",
        "audio-visual, babble at -5 dB",
        "audio-visual, babble at 10 dB",
    ]
