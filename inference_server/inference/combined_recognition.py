"""Recognize an utterance with two models, one that reads lips and one for open speech, and decide word by word."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from gorggle_fusion.confidence import NoiseCurve, NoiseWeighting
from gorggle_fusion.types import NoiseSpan, Origin
from gorggle_fusion.word_hypotheses import WordHypothesis
from gorggle_fusion.word_voting import Evidence, FusedWord, FusionRules, align_words, select_words
from gorggle_server.events import Hypothesis, Word, WordSource
from gorggle_server.inference.hypothesis_ranking import (
    AudioLikelihood,
    compute_confidence,
    rank_hypotheses,
)
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.media.noise_level import MIN_SNR_DB, estimate_snr_db
from gorggle_server.recognition_options import Modality

_ORIGINS: dict[Modality, Origin] = {
    Modality.AUDIO_VISUAL: "both",
    Modality.VIDEO_ONLY: "lips",
    Modality.AUDIO_ONLY: "audio",
}
# Accuracy of Moonshine over the ratio that ``estimate_snr_db`` finds. Measured on six readings (100 % minus the word error rate):
# in babble 95 % at 21 dB, 79 % at 15 dB, 17 % at 11 dB, nothing at 8 dB; in white noise 95 % at 21 dB, 84 % at 13 dB, 69 % at
# 8 dB, 34 % at 4 dB. The curve follows babble, in which Moonshine invents words.
_RULES = FusionRules(noise_weighting=NoiseWeighting(midpoint_db=12.0, slope_per_db=0.6))
# Hypotheses of the first model that are ranked by the audio too.
CANDIDATES = 8
# A closed vocabulary has the words of an utterance if the audio's log-likelihood of its best text is lower than that of the open
# model's text by no more than this, per second. Measured: GRID at most 13, in babble at 10 dB 21; other speech at least 34.
MAX_LIKELIHOOD_GAP_PER_S = 25.0
# An open text that fits the letters less than this is invented, as in loud babble. Measured: readings -0.65 and better, in babble at
# 10 dB -1.06 and better; texts that Moonshine invents for commands in babble at 0 dB have a median of -1.6.
MIN_FIT = -1.0
_Result = Future[list[Hypothesis]]


class CombinedSubmit:
    """Submits windows that have a waveform to two models; see ``scheduler.SubmitFunction``.

    Args:
        submit_lips: submits to the model that reads lips.
        submit_audio: submits to the model that takes the waveform.
        has_closed_lips: the first model recognizes only the words that it was trained on, and the second any words. Its own
            hypotheses from the audio alone are candidates too.
    """

    def __init__(
        self, submit_lips: SubmitFunction, submit_audio: SubmitFunction, *, has_closed_lips: bool
    ) -> None:
        self._submit_lips, self._submit_audio = submit_lips, submit_audio
        self._has_closed_lips = has_closed_lips

    def __call__(self, window: InferenceInput, options: DecodingOptions, *, interim: bool = False) -> _Result:
        """Queue a window; without a waveform only for the model that reads lips."""
        lips_window = replace(window, waveform=None)
        if window.waveform is None:
            return self._submit_lips(lips_window, options, interim=interim)
        # Words are aligned by their times.
        audio_options = replace(options, word_timestamps=True)
        lips_options = audio_options
        if options.beam_size > 1:
            lips_options = replace(
                audio_options,
                beam_size=max(options.beam_size, CANDIDATES),
                max_alternatives=max(options.max_alternatives, CANDIDATES - 1),
            )
        modality, waveform = lips_window.modality, window.waveform

        def decide(results: Sequence[list[Hypothesis]]) -> list[Hypothesis]:
            lips, audio, *heard = results
            return decide_words(
                lips,
                audio,
                modality,
                heard=heard[0] if heard else (),
                duration_s=frames_to_seconds(window.frames),
                snr_db=estimate_snr_db(waveform),
                has_closed_lips=self._has_closed_lips,
                max_alternatives=options.max_alternatives,
            )

        parts = [
            self._submit_lips(lips_window, lips_options, interim=interim),
            self._submit_audio(InferenceInput(None, None, waveform), audio_options, interim=interim),
        ]
        if self._has_closed_lips and modality is Modality.AUDIO_VISUAL and options.beam_size > 1:
            heard_window = InferenceInput(None, window.features)
            parts.append(self._submit_lips(heard_window, lips_options, interim=interim))
        return _join(parts, decide)


def decide_words(
    lips: Sequence[Hypothesis],
    audio: Sequence[Hypothesis],
    modality: Modality,
    *,
    heard: Sequence[Hypothesis] = (),
    duration_s: float,
    snr_db: float,
    has_closed_lips: bool,
    max_alternatives: int = 0,
) -> list[Hypothesis]:
    """Decide word by word between two models, by the rules of ``gorggle_fusion.word_voting``.

    If the second model can score texts, the first model's hypotheses are ranked by the audio before, and the scores tell whether
    a closed vocabulary has the words of the utterance.

    Args:
        lips: hypotheses of the model that reads lips, best first, with word timestamps.
        audio: hypotheses of the model that takes the waveform, likewise.
        modality: what the first model recognized its words from.
        heard: hypotheses of the first model from the audio alone, likewise.
        duration_s: of the audio.
        snr_db: signal-to-noise ratio of the audio, from ``estimate_snr_db``.
        has_closed_lips: see ``CombinedSubmit``.
        max_alternatives: further hypotheses to return.

    Returns:
        The decided words, each with its source; then each model's own hypotheses with other words.
    """
    is_in_vocabulary = None
    if audio and audio[0].text_scorer:
        likelihood = AudioLikelihood(audio[0].text_scorer)
        lips = rank_hypotheses(lips, heard, likelihood, snr_db)
        if lips and has_closed_lips:
            of_lips, of_audio = likelihood.compute([lips[0].text, audio[0].text])
            is_in_vocabulary = of_audio - of_lips <= MAX_LIKELIHOOD_GAP_PER_S * duration_s
            if not is_in_vocabulary and likelihood.compute_fit(audio[0].text) < MIN_FIT:
                snr_db = MIN_SNR_DB  # decide as in noise that hides the audio
    lips_words = _to_word_hypotheses(lips, _ORIGINS[modality])
    if has_closed_lips and modality is Modality.AUDIO_ONLY:
        lips_words = [replace(word, yields_to_audio=True) for word in lips_words]
    audio_words = _to_word_hypotheses(audio, "audio")
    evidence = Evidence(
        NoiseCurve([NoiseSpan(0.0, math.inf, snr_db)]),
        lips_cover=lambda _time_s: True,
        audio_covers=lambda _time_s: True,
        rules=_RULES,
        has_closed_lips=has_closed_lips,
        is_in_vocabulary=is_in_vocabulary,
    )
    selected, _ = select_words(align_words(lips_words, audio_words), evidence, person="")
    words = _adopt_sentence_style([_to_word(word, modality) for word in selected], audio)
    is_loop_removed = any(ranked[0].is_loop_removed for ranked in (lips, audio) if ranked)
    best = Hypothesis(
        " ".join(word.text for word in words),
        compute_confidence(words),
        words,
        is_loop_removed,
        is_doubtful=any(word.is_doubtful for word in selected),
    )
    others = {hypothesis.text: _add_source(hypothesis, WordSource.AUDIO) for hypothesis in audio[:1]}
    others = {hypothesis.text: hypothesis for hypothesis in lips} | others
    for text in (best.text, ""):
        others.pop(text, None)
    return [best, *list(others.values())[:max_alternatives]]


def _adopt_sentence_style(words: Sequence[Word], audio: Sequence[Hypothesis]) -> tuple[Word, ...]:
    """Begin with a capital and end with a full stop or question mark where the audio model's text does."""
    if not words or not audio or not audio[0].text:
        return tuple(words)
    texts, model_text = [word.text for word in words], audio[0].text
    if model_text[0].isupper():
        texts[0] = texts[0][0].upper() + texts[0][1:]
    if model_text[-1] in ".!?" and texts[-1][-1].isalnum():
        texts[-1] += model_text[-1]
    return tuple(replace(word, text=text) for word, text in zip(words, texts, strict=True))


def _to_word_hypotheses(ranked: Sequence[Hypothesis], origin: Origin) -> list[WordHypothesis]:
    words = ranked[0].words if ranked else ()
    return [
        WordHypothesis(word.text, word.start_s, word.end_s, word.confidence, origin, "", (0.0, math.inf))
        for word in words
    ]


def _add_source(hypothesis: Hypothesis, source: WordSource) -> Hypothesis:
    return replace(hypothesis, words=tuple(replace(word, source=source) for word in hypothesis.words))


def _to_word(word: FusedWord, modality: Modality) -> Word:
    # Without a face both models heard the word.
    source = WordSource.AUDIO if modality is Modality.AUDIO_ONLY else WordSource(word.source)
    return Word(word.text, word.start_s, word.end_s, word.confidence, source)


def _join(
    parts: Sequence[_Result], decide: Callable[[Sequence[list[Hypothesis]]], list[Hypothesis]]
) -> _Result:
    """Return a future of the decided words. Cancelling it cancels all parts, and the failure of a part fails it."""
    joined: _Result = Future()

    def finish() -> None:
        errors = [error for part in parts if not part.cancelled() and (error := part.exception()) is not None]
        if not errors and any(part.cancelled() for part in parts):
            joined.cancel()
        elif joined.set_running_or_notify_cancel():
            try:
                if errors:
                    raise errors[0]
                joined.set_result(decide([part.result() for part in parts]))
            except Exception as error:  # thread boundary: raised again by the reader of the future
                joined.set_exception(error)

    def wait_for(index: int) -> None:
        """Wait for the parts from this one on; where one has no result, the others are not needed."""
        if index == len(parts):
            finish()
            return

        def proceed(part: _Result) -> None:
            if part.cancelled() or part.exception() is not None:
                for other in parts:
                    other.cancel()
            wait_for(index + 1)

        parts[index].add_done_callback(proceed)

    def cancel_parts(_: _Result) -> None:
        if joined.cancelled():
            for part in parts:
                part.cancel()

    joined.add_done_callback(cancel_parts)
    wait_for(0)
    return joined
