"""A loaded model: encoding, beam search and word timestamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gorggle_server.avhubert import beam_search, input_validation, optimization, word_alignment
from gorggle_server.avhubert.beam_search import BeamSearch, Hypothesis
from gorggle_server.avhubert.config import EOS, ModelConfig
from gorggle_server.avhubert.input_validation import Array
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.events import Word
from gorggle_server.input_format import GREY_MEAN, GREY_STD


class Model:
    """Network, vocabulary and model card of one checkpoint.

    All methods accept torch tensors or numpy arrays and return tensors on the model's device. Not thread-safe.
    """

    def __init__(
        self, network: AVHubertNetwork, vocabulary: Vocabulary, card: Mapping[str, Any] | None = None
    ) -> None:
        if len(vocabulary) != network.config.vocabulary_size:
            raise ModelFormatError(
                f"the dictionary has {len(vocabulary)} tokens, the decoder {network.config.vocabulary_size}: "
                "they do not match"
            )
        self.network = network.eval()
        self.vocabulary = vocabulary
        self.card: dict[str, Any] = dict(card or {})
        self.parameter_count = sum(weights.numel() for weights in network.parameters())

    def optimize(self, *, int8: bool = False) -> Model:
        """Optimize the model for inference in place (see ``optimization``); it can no longer be trained or saved.

        Args:
            int8: quantize the weights of linear layers to 8 bits: faster on a CPU, but results change.
        """
        optimization.optimize_for_inference(self.network, int8=int8)
        return self

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.network.config

    @property
    def tokens(self) -> list[str]:
        """The output tokens, indexed by id."""
        return self.vocabulary.tokens

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of all computations except the scores of the search."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        return self.network.decoder.embed_tokens.weight

    @torch.inference_mode()
    def encode(
        self,
        video: Array | None = None,
        audio: Array | None = None,
        padding_mask: Array | None = None,
        *,
        has_video: Array | None = None,
        has_audio: Array | None = None,
    ) -> Tensor:
        """Encode a batch of clips.

        Args:
            video: (B, T, 88, 88), normalised mouth crops at 25 fps; None if the batch has no video.
            audio: (B, T, 104), ``audio_features`` at 25 Hz; None if the batch has no audio.
            padding_mask: bool (B, T), true where padded.
            has_video: bool (B,), false for those clips of a mixed batch that have no video.
            has_audio: bool (B,), likewise for audio.

        Returns:
            (B, T, D); padded frames are undefined.

        Raises:
            InvalidRequestError: video and audio are both None, or shapes do not match.
        """
        frames = None if video is None else input_validation.to_video(video, self.device, self.dtype)
        shape = ("B", "T") if frames is None else tuple(frames.shape[:2])
        features = None
        if audio is not None:
            features = input_validation.to_features(
                "audio", audio, (*shape, self.config.audio_dim), self.device, self.dtype
            )
        present = frames if frames is not None else features
        if present is None:
            raise InvalidRequestError("video and audio are both None; expected at least one")
        batch, length = present.shape[:2]
        return self.network.encode(
            frames,
            features,
            input_validation.to_padding_mask(padding_mask, batch, length, self.device),
            has_video=input_validation.to_presence("has_video", has_video, batch, self.device),
            has_audio=input_validation.to_presence("has_audio", has_audio, batch, self.device),
        )

    @torch.inference_mode()
    def encode_clips(
        self, crops: Sequence[NDArray[np.uint8]] | None, features: Sequence[NDArray[np.float32]] | None
    ) -> list[Tensor | None]:
        """Encode clips of one modality as a batch; see ``inference.recognizer.Model``."""
        lengths = [len(clip) for clip in (crops if crops is not None else features or ())]
        padding_mask = torch.arange(max(lengths))[None, :] >= torch.tensor(lengths)[:, None]
        encoder_out = self.encode(
            video=None if crops is None else self._stack_crops(crops),
            audio=None if features is None else _stack(features, torch.float32),
            padding_mask=padding_mask if bool(padding_mask.any()) else None,
        )
        clips = [row[:length] for row, length in zip(encoder_out, lengths, strict=True)]
        return [clip if bool(torch.isfinite(clip).all()) else None for clip in clips]

    def _stack_crops(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return normalised crops (B, T, 88, 88). They are copied to the device as bytes, a quarter of the size of floats."""
        batch = _stack(crops, torch.uint8)
        if self.device.type == "cuda":
            # Only a copy from pinned memory can overlap with computation.
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        # One new tensor, then in place: a large batch is not written three times into newly allocated memory.
        return (batch / 255).sub_(GREY_MEAN).div_(GREY_STD)

    def release_memory(self) -> None:
        """Release cached device memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def logits(self, encoder_out: Array, padding_mask: Array | None, prev_output_tokens: Array) -> Tensor:
        """Return next-token logits with teacher forcing.

        Args:
            encoder_out: (B, T, D).
            padding_mask: bool (B, T), true where padded.
            prev_output_tokens: (B, L), starting with ``</s>``.

        Returns:
            (B, L, V).
        """
        encoded, padded = self._validate_encoder_out(encoder_out, padding_mask)
        tokens = input_validation.to_token_ids(
            "prev_output_tokens", prev_output_tokens, len(encoded), self.config.vocabulary_size, self.device
        )
        return self.network.decode(encoded, padded, tokens)

    @torch.inference_mode()
    def beam_search(
        self,
        encoder_out: Array,
        padding_mask: Array | None = None,
        *,
        beam: int,
        length_penalty: float = 1.0,
        max_len: int | Sequence[int],
    ) -> list[list[Hypothesis]]:
        """Find the most probable hypotheses of each clip.

        Args:
            encoder_out: (B, T, D).
            padding_mask: bool (B, T), true where padded.
            beam: beam width; 1 is greedy search.
            length_penalty: exponent of the length that divides the sum of log-probabilities; above 1 favours long
                hypotheses.
            max_len: maximum tokens before ``</s>``, for all clips or per clip.

        Returns:
            For each clip up to ``beam`` hypotheses, best first.

        Raises:
            InvalidRequestError: an argument is out of range.
            ModelFormatError: the model's scores are not finite.
        """
        encoded, padded = self._validate_encoder_out(encoder_out, padding_mask)
        limits = input_validation.to_token_limits(max_len, len(encoded), self.config.max_target_size - 1)
        return beam_search.beam_search(
            self.start_beam_search(beam=beam, length_penalty=length_penalty), encoded, padded, limits=limits
        )

    def start_beam_search(self, *, beam: int, length_penalty: float = 1.0) -> BeamSearch:
        """Return an empty ``BeamSearch``, to which clips can be added between steps.

        Raises:
            InvalidRequestError: an argument is out of range.
        """
        if beam < 1:
            raise InvalidRequestError(f"beam is {beam}; expected at least 1")
        return BeamSearch(
            self.network.decoder, beam=beam, length_penalty=length_penalty, detokenize=self.vocabulary.decode
        )

    @torch.inference_mode()
    def align_words(self, encoder_out: Array, hypothesis: Hypothesis) -> list[Word]:
        """Compute the timestamps of each word of a hypothesis.

        Args:
            encoder_out: (T, D), one clip without padding.
            hypothesis: a result of ``beam_search`` for this clip.

        Returns:
            One entry for each word of ``hypothesis.text``.
        """
        encoded = input_validation.to_features(
            "encoder_out", encoder_out, ("T", self.config.encoder_dim), self.device, self.dtype
        )
        previous = torch.tensor([[EOS, *hypothesis.tokens[:-1]]], device=self.device)
        _, attention = self.network.decode_with_attention(encoded.unsqueeze(0), None, previous)
        return word_alignment.align_words(
            attention[0].float().cpu().numpy(),
            [self.tokens[token] for token in hypothesis.tokens],
            token_scores=hypothesis.token_scores,
        )

    def compute_word_probabilities(self, hypothesis: Hypothesis) -> list[float]:
        """Return the probability of each word of ``hypothesis.text`` given the previous ones."""
        pieces = self.vocabulary.to_pieces(hypothesis.tokens)
        return word_alignment.compute_word_probabilities(pieces, hypothesis.token_scores)

    def _validate_encoder_out(
        self, encoder_out: Array, padding_mask: Array | None
    ) -> tuple[Tensor, Tensor | None]:
        wanted = ("B", "T", self.config.encoder_dim)
        encoded = input_validation.to_features("encoder_out", encoder_out, wanted, self.device, self.dtype)
        return encoded, input_validation.to_padding_mask(
            padding_mask, len(encoded), encoded.shape[1], self.device
        )


def _stack(clips: Sequence[NDArray[np.generic]], dtype: torch.dtype) -> Tensor:
    """Return clips (T, ...) as one batch (B, T, ...), padded with zeros."""
    batch = torch.zeros(len(clips), max(map(len, clips)), *clips[0].shape[1:], dtype=dtype)
    for row, clip in zip(batch.numpy(), clips, strict=True):
        row[: len(clip)] = clip
    return batch
