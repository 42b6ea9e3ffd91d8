"""Recognition session from buffered media to segments, with a scripted pipeline and an immediate backend."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from gorggle_server.errors import NoFaceError
from gorggle_server.events import (
    Activity,
    Event,
    FaceBox,
    Finished,
    Hypothesis,
    Progress,
    Segment,
    StreamWarning,
    WarningKind,
    Word,
)
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.input_format import frames_to_samples, frames_to_seconds
from gorggle_server.recognition_options import AudioInput, Modality, ModelInput, RecognitionOptions
from gorggle_server.streaming.interim_text import InterimRateLimiter
from gorggle_server.streaming.session import RecognitionSession, ResumeState
from gorggle_server.streaming.stream_buffer import FaceTrack, StreamBuffer

CROP = np.full((96, 96), 128, np.uint8)
NOISE = np.random.default_rng(0).integers(-3000, 3000, frames_to_samples(2000)).astype(np.int16)


class ScriptedPipeline:
    """Media pipeline that produces given speech probabilities, ``step`` frames at a time."""

    def __init__(
        self,
        frames: int,
        audio_vad: list[float] | None,
        faces: dict[int, list[float]],
        loud: bool = True,
        is_noisy: bool = False,
        step: int = 10,
        contains_voice: bool = True,
    ) -> None:
        self.step = step
        self.contains_voice = contains_voice
        self.is_noisy = is_noisy
        self.buffer, self.frames, self.audio_vad, self.faces, self.loud = (
            StreamBuffer(),
            frames,
            audio_vad,
            faces,
            loud,
        )
        self.has_audio, self.has_video, self.tracks_faces = audio_vad is not None, True, True
        self.faces_in_view = self.total_faces = len(faces)
        self.max_buffered_samples = 0
        self.tracks: dict[int, FaceTrack | None] = {}

    def steps(self) -> Iterator[Iterable[Event]]:
        for start in range(0, self.frames, self.step):
            end = min(start + self.step, self.frames)
            if self.audio_vad is not None:
                self.buffer.add_audio(self.get_audio(start, end))
                self.buffer.add_audio_vad(self.audio_vad[start:end])
                self.buffer.add_speech([float(self.contains_voice)] * (end - start))
            for person, speaking in self.faces.items():
                track = self.tracks.setdefault(person, None) or self.buffer.begin_track(person, 0)
                self.tracks[person] = track
                for frame in range(start, end):
                    track.add_crop(frame, CROP)
                    track.boxes += [FaceBox(frame / 25, 0.1, 0.1, 0.2, 0.2)] if frame % 5 == 0 else []
                track.speaking.extend(speaking[start:end])
            self.buffer.video_end = end
            yield ()
            self.max_buffered_samples = max(self.max_buffered_samples, len(self.buffer._audio))

    def get_audio(self, start: int, end: int) -> np.ndarray:
        """Return noise during speech except in every fifth frame; with ``is_noisy``, return noise throughout."""
        assert self.audio_vad is not None
        gains = [
            float(self.loud and (self.is_noisy or (self.audio_vad[frame] > 0.5 and frame % 5 != 0)))
            for frame in range(start, end)
        ]
        samples = (
            NOISE[frames_to_samples(start) : frames_to_samples(end)].reshape(len(gains), -1)
            * np.array(gains)[:, None]
        )
        return samples.ravel().astype(np.int16)


class EchoBackend:
    """Transcribes every window as one word that names its modality."""

    def __init__(self) -> None:
        self.windows: list[InferenceInput] = []

    def submit(
        self, window: InferenceInput, options: DecodingOptions, *, interim: bool = False
    ) -> Future[list[Hypothesis]]:
        self.windows.append(window)
        text = f"{'interim ' if interim else ''}{window.modality.name.lower()}"
        future: Future[list[Hypothesis]] = Future()
        future.set_result([Hypothesis(text, 0.9, (Word(text, 0.2, frames_to_seconds(window.frames), 0.9),))])
        return future


def run_session(pipeline: ScriptedPipeline, **options: object) -> tuple[list[Event], EchoBackend]:
    events: list[Event] = []
    backend = EchoBackend()
    RecognitionSession(pipeline, RecognitionOptions("m", **options), backend.submit, events.append).run()  # type: ignore[arg-type]
    return events, backend


def filter_events(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


TWO_UTTERANCES = [0.0] * 25 + [1.0] * 50 + [0.0] * 50 + [1.0] * 50 + [0.0] * 25


def test_two_sentences_of_one_speaker_are_two_segments_in_stream_time() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {7: TWO_UTTERANCES}))
    first, second = filter_events(events, Segment)
    assert (first.segment_id, second.segment_id) == ("segment-19", "segment-119")
    assert first.speaker_id == second.speaker_id == "face-1"
    assert first.modality is Modality.AUDIO_VISUAL
    assert first.start_s == pytest.approx(19 / 25 + 0.2)
    assert first.end_s == pytest.approx(81 / 25)
    assert second.start_s == pytest.approx(119 / 25 + 0.2)
    assert events[-1] == Finished(8.0, 2, 1)


def test_video_only_utterances_are_segmented_by_lip_movement() -> None:
    events, backend = run_session(
        ScriptedPipeline(200, None, {1: TWO_UTTERANCES}), modality=Modality.VIDEO_ONLY
    )
    assert [s.modality for s in filter_events(events, Segment)] == [Modality.VIDEO_ONLY] * 2
    assert all(window.features is None and window.crops is not None for window in backend.windows)


def test_simultaneous_speakers_are_both_recognized_from_video() -> None:
    late = [0.0] * 40 + [1.0] * 60 + [0.0] * 100
    events, _ = run_session(
        ScriptedPipeline(200, None, {1: TWO_UTTERANCES, 2: late}), modality=Modality.VIDEO_ONLY
    )
    assert sorted(s.speaker_id for s in filter_events(events, Segment)) == ["face-1", "face-1", "face-2"]


def test_two_people_who_take_turns_get_two_speaker_ids() -> None:
    audio_vad = [0.0] * 20 + [1.0] * 120 + [0.0] * 60
    left = [0.0] * 20 + [0.9] * 60 + [0.05] * 120
    right = [0.05] * 80 + [0.9] * 60 + [0.05] * 60
    events, _ = run_session(ScriptedPipeline(200, audio_vad, {1: left, 2: right}))
    assert [s.speaker_id for s in filter_events(events, Segment)] == ["face-1", "face-2"]


def test_speech_with_a_still_face_is_recognized_from_audio() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {1: [0.0] * 200}))
    assert [(s.speaker_id, s.modality) for s in filter_events(events, Segment)] == [
        ("voice", Modality.AUDIO_ONLY)
    ] * 2


def test_lip_activity_segments_speech_in_constant_noise() -> None:
    constant_speech = [1.0] * 200
    events, backend = run_session(ScriptedPipeline(200, constant_speech, {1: TWO_UTTERANCES}, is_noisy=True))
    first, second = filter_events(events, Segment)
    assert first.speaker_id == second.speaker_id == "face-1"
    assert first.end_s < second.start_s
    assert all(window.features is not None and window.crops is not None for window in backend.windows)


def test_audio_is_recognized_in_noise_without_a_face() -> None:
    events, _ = run_session(ScriptedPipeline(200, [1.0] * 200, {}, is_noisy=True))
    assert [s.speaker_id for s in filter_events(events, Segment)] == ["voice"]


def test_a_continuous_narrator_is_recognized_over_resting_faces() -> None:
    events, _ = run_session(ScriptedPipeline(200, [1.0] * 200, {1: [0.0] * 200}))
    assert [(s.speaker_id, s.modality) for s in filter_events(events, Segment)] == [
        ("voice", Modality.AUDIO_ONLY)
    ]


def test_lip_movement_in_silence_is_recognized_from_video() -> None:
    events, _ = run_session(ScriptedPipeline(200, [0.0] * 200, {1: TWO_UTTERANCES}, loud=False))
    assert [s.modality for s in filter_events(events, Segment)] == [Modality.VIDEO_ONLY] * 2


def test_audio_without_a_voice_has_no_segment() -> None:
    pipeline = ScriptedPipeline(200, TWO_UTTERANCES, {1: [0.0] * 200}, contains_voice=False)
    events, backend = run_session(pipeline, interim_results=True, activity_events=True, live=True)
    assert not backend.windows
    assert not filter_events(events, Segment)
    assert not filter_events(events, Activity)
    assert [warning.kind for warning in filter_events(events, StreamWarning)] == [WarningKind.NO_SPEECH]


def test_lip_movement_is_recognized_where_no_voice_is_heard_in_the_noise() -> None:
    pipeline = ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}, contains_voice=False)
    events, _ = run_session(pipeline)
    assert [s.modality for s in filter_events(events, Segment)] == [Modality.AUDIO_VISUAL] * 2


SPEECH_MODEL = ModelInput(uses_lips=False, audio=AudioInput.WAVEFORM)


def test_a_model_that_reads_audio_gets_the_waveform_and_faces_tell_who_speaks() -> None:
    pipeline = ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES})
    events, backend = run_session(pipeline, model_input=SPEECH_MODEL)
    assert [(s.speaker_id, s.modality) for s in filter_events(events, Segment)] == [
        ("face-1", Modality.AUDIO_ONLY)
    ] * 2
    for window in backend.windows:
        assert window.crops is None
        assert window.features is None
        assert window.waveform is not None
        assert len(window.waveform) == frames_to_samples(window.frames)
    assert [warning.kind for warning in filter_events(events, StreamWarning)] == [WarningKind.LIPS_NOT_USED]


def test_a_model_that_reads_audio_ignores_lip_movement_in_silence() -> None:
    pipeline = ScriptedPipeline(200, [0.0] * 200, {1: TWO_UTTERANCES}, loud=False, contains_voice=False)
    events, backend = run_session(pipeline, model_input=SPEECH_MODEL)
    assert not backend.windows
    assert filter_events(events, StreamWarning)[-1].message == "no speech was found in audio"


def test_a_model_that_reads_audio_recognizes_speech_in_noise_that_lips_segment() -> None:
    pipeline = ScriptedPipeline(200, [1.0] * 200, {1: TWO_UTTERANCES}, is_noisy=True)
    events, backend = run_session(pipeline, model_input=SPEECH_MODEL)
    assert len(filter_events(events, Segment)) == 2
    assert all(window.waveform is not None for window in backend.windows)


@pytest.mark.parametrize("has_open_vocabulary", [True, False])
def test_words_of_a_closed_vocabulary_from_lips_alone_are_doubtful(has_open_vocabulary: bool) -> None:
    silent = ScriptedPipeline(200, None, {1: TWO_UTTERANCES})
    events, _ = run_session(silent, has_open_vocabulary=has_open_vocabulary, interim_results=True)
    assert {s.is_doubtful for s in filter_events(events, Segment)} == {not has_open_vocabulary}
    audible = ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES})
    events, _ = run_session(audible, has_open_vocabulary=has_open_vocabulary)
    assert not any(s.is_doubtful for s in filter_events(events, Segment))


def test_a_closed_vocabulary_is_reported_once_and_only_with_speech() -> None:
    pipeline = ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES})
    events, _ = run_session(pipeline, has_open_vocabulary=False, open_vocabulary_models=("large", "tiny"))
    [warning] = filter_events(events, StreamWarning)
    assert warning.kind is WarningKind.CLOSED_VOCABULARY
    assert warning.message.endswith("models for any words: large, tiny")
    events, _ = run_session(ScriptedPipeline(200, [0.0] * 200, {1: [0.0] * 200}), has_open_vocabulary=False)
    assert [warning.kind for warning in filter_events(events, StreamWarning)] == [WarningKind.NO_SPEECH]


def test_a_removed_loop_is_reported_with_its_time() -> None:
    class LoopingBackend(EchoBackend):
        def submit(self, *args: Any, **kwargs: Any) -> Future[list[Hypothesis]]:
            (hypothesis,) = super().submit(*args, **kwargs).result()
            future: Future[list[Hypothesis]] = Future()
            future.set_result([dataclasses.replace(hypothesis, is_loop_removed=len(self.windows) == 2)])
            return future

    events: list[Event] = []
    pipeline = ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES})
    RecognitionSession(pipeline, RecognitionOptions("m"), LoopingBackend().submit, events.append).run()
    (warning,) = filter_events(events, StreamWarning)
    assert warning.kind is WarningKind.REPETITION
    second = filter_events(events, Segment)[1]
    assert events.index(warning) == events.index(second) - 1
    start_s, end_s = map(float, re.findall(r"([0-9.]+) s", warning.message))
    assert start_s <= second.start_s < second.end_s <= end_s


def test_an_audio_visual_stream_without_audio_is_recognized_from_video() -> None:
    events, _ = run_session(ScriptedPipeline(200, None, {1: TWO_UTTERANCES}))
    assert [s.modality for s in filter_events(events, Segment)] == [Modality.VIDEO_ONLY] * 2


def test_video_only_without_a_face_is_rejected() -> None:
    with pytest.raises(NoFaceError, match=r"no face was found in 8\.0 s.* at least about 60 pixels wide"):
        run_session(ScriptedPipeline(200, None, {}), modality=Modality.VIDEO_ONLY)


def test_silence_yields_a_warning_and_no_segments() -> None:
    events, _ = run_session(ScriptedPipeline(100, [0.0] * 100, {1: [0.0] * 100}))
    assert [w.kind for w in filter_events(events, StreamWarning)] == [WarningKind.NO_SPEECH]
    assert not filter_events(events, Segment)


def test_a_missing_face_is_reported_once() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {}))
    assert [w.kind for w in filter_events(events, StreamWarning)] == [WarningKind.NO_FACE]
    assert [s.speaker_id for s in filter_events(events, Segment)] == ["voice", "voice"]


@pytest.mark.usefixtures("_zero_decoding_latency")
def test_interim_results_share_the_segment_id_of_the_final_result() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}), interim_results=True)
    segments = filter_events(events, Segment)
    first = [s for s in segments if s.segment_id == "segment-19"]
    assert [s.is_final for s in first] == [False] * (len(first) - 1) + [True]
    assert len(first) > 2
    assert [s.revision for s in first] == list(range(1, len(first) + 1))
    assert first[0].stability == 0
    assert first[-1].stability == 1


@pytest.mark.usefixtures("_zero_decoding_latency")
@pytest.mark.parametrize("face_boxes", [True, False])
def test_interim_results_include_the_latest_face_box(face_boxes: bool) -> None:
    events, _ = run_session(
        ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}),
        interim_results=True,
        face_boxes=face_boxes,
    )
    interim = [segment for segment in filter_events(events, Segment) if not segment.is_final]
    assert interim
    assert {len(segment.face_boxes) for segment in interim} == {int(face_boxes)}
    times_s = [box.offset_s for segment in interim for box in segment.face_boxes]
    assert times_s == sorted(times_s)


def test_activity_events_enclose_each_utterance() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {}), activity_events=True)
    reported = [(event.kind.value, round(event.offset_s, 2)) for event in filter_events(events, Activity)]
    assert reported == [("begin", 1.0), ("end", 3.0), ("begin", 5.0), ("end", 7.0)]


def test_segments_include_face_boxes_if_requested() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}), face_boxes=True)
    for segment in filter_events(events, Segment):
        assert len(segment.face_boxes) >= 10
        assert all(segment.start_s - 0.5 < box.offset_s < segment.end_s + 0.5 for box in segment.face_boxes)
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}))
    assert not any(segment.face_boxes for segment in filter_events(events, Segment))


def test_progress_does_not_exceed_the_final_results() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}))
    reported = filter_events(events, Progress)
    assert len(reported) >= 5
    for progress in reported:
        assert progress.processed_s <= progress.received_s
        final = [s for s in events[: events.index(progress)] if isinstance(s, Segment)]
        for segment in filter_events(events, Segment):
            assert segment in final or segment.start_s >= progress.processed_s


def test_buffers_do_not_grow_with_the_stream_length() -> None:
    curve = TWO_UTTERANCES * 9
    pipeline = ScriptedPipeline(len(curve), curve, {1: curve})
    events, _ = run_session(pipeline)
    assert len(filter_events(events, Segment)) == 18
    assert pipeline.max_buffered_samples < frames_to_samples(400)
    assert len(pipeline.buffer.tracks[1].crops) < 400


def test_stopping_a_session_cancels_its_windows() -> None:
    class StuckBackend(EchoBackend):
        def submit(self, *args: object, **kwargs: object) -> Future[list[Hypothesis]]:
            self.future: Future[list[Hypothesis]] = Future()
            return self.future

    backend = StuckBackend()
    events: list[Event] = []
    session = RecognitionSession(
        ScriptedPipeline(200, TWO_UTTERANCES, {}), RecognitionOptions("m"), backend.submit, events.append
    )
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    session.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert backend.future.cancelled()


# -------------------------------------------------------------------------------------------------------- live results


class WordBackend:
    """Transcribes a window synchronously as one word per half second.

    ``replacements`` maps the number of a call to the text that it returns instead.
    """

    def __init__(self, replacements: dict[int, str] | None = None) -> None:
        self.calls = 0
        self.searches: list[DecodingOptions] = []
        self.interim: list[bool] = []
        self._replacements = replacements or {}

    def submit(
        self, window: InferenceInput, options: DecodingOptions, *, interim: bool = False
    ) -> Future[list[Hypothesis]]:
        self.calls += 1
        self.searches.append(options)
        self.interim.append(interim)
        texts = [f"word{number}" for number in range(int(window.frames / 12.5))]
        if self.calls in self._replacements:
            texts = self._replacements[self.calls].split()
        words = tuple(Word(text, number / 2, (number + 1) / 2, 0.9) for number, text in enumerate(texts))
        future: Future[list[Hypothesis]] = Future()
        future.set_result([Hypothesis(" ".join(texts), 0.9, words if options.word_timestamps else ())])
        return future


@pytest.fixture
def _zero_decoding_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore measured latency, so that interim results do not depend on the load of this machine."""
    monkeypatch.setattr(InterimRateLimiter, "record_latency", lambda *_: None)


def run_live(
    pipeline: ScriptedPipeline, backend: WordBackend, **options: object
) -> tuple[list[Event], list[Segment]]:
    events: list[Event] = []
    recognition_options = RecognitionOptions("m", interim_results=True, **options)  # type: ignore[arg-type]
    RecognitionSession(pipeline, recognition_options, backend.submit, events.append).run()
    return events, filter_events(events, Segment)


def assert_stable_words_persist(segments: list[Segment]) -> None:
    stable: dict[str, list[str]] = {}
    for segment in segments:
        words = segment.best.text.split()
        before = stable.get(segment.segment_id, [])
        assert words[: len(before)] == before
        assert segment.stable_words >= len(before)
        stable[segment.segment_id] = words[: segment.stable_words]


@pytest.mark.usefixtures("_zero_decoding_latency")
def test_words_become_stable_during_an_utterance() -> None:
    _, segments = run_live(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}), WordBackend())
    first = [segment for segment in segments if segment.segment_id == "segment-19"]
    assert [segment.is_final for segment in first] == [False] * (len(first) - 1) + [True]
    stable = [segment.stable_words for segment in first]
    assert stable[0] == 0
    assert stable == sorted(stable)
    assert stable[-2] > 0
    assert first[-1].stable_words == len(first[-1].best.text.split())
    assert_stable_words_persist(segments)


@pytest.mark.usefixtures("_zero_decoding_latency")
@pytest.mark.parametrize("number", range(1, 12))
def test_a_contradicting_hypothesis_does_not_change_stable_words(number: int) -> None:
    backend = WordBackend({number: "some other words entirely said"})
    _, segments = run_live(ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}), backend)
    assert len([segment for segment in segments if segment.is_final]) == 2
    assert_stable_words_persist(segments)


@pytest.mark.usefixtures("_zero_decoding_latency")
def test_word_timestamps_are_omitted_unless_requested() -> None:
    _, segments = run_live(
        ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}), WordBackend(), word_timestamps=False
    )
    assert any(segment.stable_words for segment in segments if not segment.is_final)
    assert not any(segment.best.words for segment in segments)


@pytest.mark.usefixtures("_zero_decoding_latency")
def test_interim_results_in_noise_come_from_video() -> None:
    noise = [1.0] * 200
    events, segments = run_live(
        ScriptedPipeline(200, noise, {1: TWO_UTTERANCES}, is_noisy=True), WordBackend(), activity_events=True
    )
    interim = [segment for segment in segments if not segment.is_final]
    assert len(interim) >= 2
    assert {segment.speaker_id for segment in interim} == {"face-1"}
    finals = [segment for segment in segments if segment.is_final]
    assert [segment.segment_id for segment in finals] == list(
        dict.fromkeys(segment.segment_id for segment in interim)
    )
    reported = [(event.kind.value, event.speaker_id) for event in filter_events(events, Activity)]
    assert reported == [("begin", "face-1"), ("end", "face-1")] * 2


@pytest.mark.usefixtures("_zero_decoding_latency")
def test_an_empty_final_result_retracts_interim_results() -> None:
    class EmptyFinalBackend(WordBackend):
        def submit(self, *args: object, interim: bool = False, **kwargs: object) -> Future[list[Hypothesis]]:
            if interim:
                return super().submit(*args, interim=True, **kwargs)  # type: ignore[arg-type]
            future: Future[list[Hypothesis]] = Future()
            future.set_result([Hypothesis("", 0.0)])
            return future

    short = [0.0] * 25 + [1.0] * 12 + [0.0] * 63
    _, segments = run_live(ScriptedPipeline(100, short, {1: short}), EmptyFinalBackend())
    assert [segment.is_final for segment in segments][-1:] == [True]
    assert not segments[-1].best.text
    assert segments[0].best.text


def test_a_live_utterance_is_decoded_once_before_its_endpoint() -> None:
    backend = WordBackend()
    events: list[Event] = []
    options = RecognitionOptions("m", live=True)
    RecognitionSession(
        ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}, step=2),
        options,
        backend.submit,
        events.append,
    ).run()
    assert [segment.best.text for segment in filter_events(events, Segment)] == [
        segment.best.text for segment in filter_events(run_recorded(WordBackend()), Segment)
    ]
    assert backend.interim == [False, False], (
        "each utterance is decoded once, as a final result, before its endpoint"
    )


def run_recorded(backend: WordBackend) -> list[Event]:
    events: list[Event] = []
    RecognitionSession(
        ScriptedPipeline(200, TWO_UTTERANCES, {1: TWO_UTTERANCES}),
        RecognitionOptions("m"),
        backend.submit,
        events.append,
    ).run()
    return events


def test_a_stream_ends_after_the_silence_timeout() -> None:
    curve = TWO_UTTERANCES + [0.0] * 2000
    pipeline = ScriptedPipeline(len(curve), curve, {})
    events, _ = run_session(pipeline, silence_timeout_s=10.0)
    assert WarningKind.SILENCE_TIMEOUT in [warning.kind for warning in filter_events(events, StreamWarning)]
    assert len(filter_events(events, Segment)) == 2
    assert 17 < events[-1].duration_s < 19


def test_speech_resets_the_silence_timeout() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {}), silence_timeout_s=3.0)
    assert events[-1].duration_s == 8.0


def test_final_segments_are_not_decoded_again_after_a_resume() -> None:
    events, _ = run_session(ScriptedPipeline(200, TWO_UTTERANCES, {7: TWO_UTTERANCES}))
    [state] = [event.checkpoint for event in filter_events(events, Progress) if event.processed_s > 4][:1]
    backend = WordBackend()
    resumed: list[Event] = []
    before = dataclasses.replace(state, channels=(), recent_speech=())
    RecognitionSession(
        ScriptedPipeline(200, TWO_UTTERANCES, {7: TWO_UTTERANCES}),
        RecognitionOptions("m", activity_events=True),
        backend.submit,
        resumed.append,
        resume_state=ResumeState(before),
    ).run()
    assert [segment.segment_id for segment in filter_events(resumed, Segment)] == ["segment-119"]
    assert backend.calls == 1
    assert next(event.processed_s for event in filter_events(resumed, Progress)) == frames_to_seconds(
        state.final_end
    )
    assert len(filter_events(resumed, Activity)) == 2
    assert resumed[-1] == events[-1], "the totals include both segments"
