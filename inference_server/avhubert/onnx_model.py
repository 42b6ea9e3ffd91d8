"""AV-HuBERT computed by onnxruntime on a CPU, without torch: the counterpart of ``model.Model``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gorggle_server.avhubert import word_alignment
from gorggle_server.avhubert.beam_search import (
    BeamSearch,
    Candidates,
    Hypothesis,
    StepInput,
    select_candidates,
)
from gorggle_server.avhubert.config import EOS, PAD, ModelConfig
from gorggle_server.avhubert.onnx_weights import INDEX_FILE, prepare_weights
from gorggle_server.avhubert.slot_table import SlotTable, extend
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.events import Word
from gorggle_server.input_format import GREY_MEAN, GREY_STD
from gorggle_server.onnx_session import open_session

FloatArray = NDArray[np.float32]

GRAPHS = ("video_frontend", "encoder", "source_projection", "decoder_step", "alignment")
# Of batch normalisation; they are not trained.
STATISTICS = ("running_mean", "running_var")
# The stem covers this many frames before and after each frame.
STEM_MARGIN = 2
# The front-end computes this many frames at a time, so that activations stay in the CPU caches.
CHUNK_FRAMES = 32


class OnnxModel:
    """Graphs, weights and vocabulary of one model. Not thread-safe."""

    def __init__(
        self,
        graphs: Path,
        weights: Mapping[str, FloatArray],
        config: ModelConfig,
        vocabulary: Vocabulary,
        card: Mapping[str, Any],
        num_threads: int = 1,
    ) -> None:
        """Open the graphs.

        Args:
            graphs: folder with those of this architecture.
            weights: float32, by their names in ``AVHubertNetwork``.
            config: of the model.
            vocabulary: the output tokens.
            card: the model card.
            num_threads: of one operation.

        Raises:
            ModelFormatError: a graph is missing or damaged, or does not fit the weights.
        """
        self.config, self.vocabulary = config, vocabulary
        self.card: dict[str, Any] = dict(card)
        self.parameter_count = sum(
            weight.size for name, weight in weights.items() if not name.endswith(STATISTICS)
        )
        prepared = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(weight)
            for name, weight in prepare_weights(weights, config).items()
        }
        needed = json.loads((graphs / INDEX_FILE).read_text())["weights"]
        self._frontend, self._encoder, self._source, step, self._alignment = (
            open_session(
                graphs / f"{name}.onnx", num_threads, {weight: prepared[weight] for weight in needed[name]}
            )
            for name in GRAPHS
        )
        self._decoder = OnnxDecoder(config, self._source, step)

    @property
    def tokens(self) -> list[str]:
        """The output tokens, indexed by id."""
        return self.vocabulary.tokens

    def encode_clips(
        self, crops: Sequence[NDArray[np.uint8]] | None, features: Sequence[NDArray[np.float32]] | None
    ) -> list[FloatArray | None]:
        """Encode clips of one modality, one by one: on a CPU a batch is not faster. See ``inference.recognizer.Model``."""
        clips = [
            self._encode_clip(
                None if crops is None else crops[number], None if features is None else features[number]
            )
            for number in range(len(crops if crops is not None else features or ()))
        ]
        return [clip if np.isfinite(clip).all() else None for clip in clips]

    def _encode_clip(self, crops: NDArray[np.uint8] | None, features: FloatArray | None) -> FloatArray:
        frames = len(crops if crops is not None else features if features is not None else ())
        video = np.zeros((frames, self.config.encoder_dim), np.float32)
        if crops is not None:
            video = self._extract_video_features(crops)
        audio = np.zeros((frames, self.config.audio_dim), np.float32) if features is None else features
        has_audio = np.array([features is not None], np.float32)
        inputs = {"video": video, "audio": audio, "has_audio": has_audio}
        encoded: FloatArray = self._encoder.run(None, inputs)[0][0]
        return encoded

    def _extract_video_features(self, crops: NDArray[np.uint8]) -> FloatArray:
        normalised = (crops / np.float32(255) - np.float32(GREY_MEAN)) / np.float32(GREY_STD)
        room = ((STEM_MARGIN, STEM_MARGIN), (0, 0), (0, 0))
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(normalised, room), 2 * STEM_MARGIN + 1, axis=0
        )
        frames = windows.transpose(0, 3, 1, 2)
        parts = [
            self._frontend.run(None, {"frames": np.ascontiguousarray(frames[start : start + CHUNK_FRAMES])})
            for start in range(0, len(crops), CHUNK_FRAMES)
        ]
        return np.concatenate([part[0] for part in parts])

    def release_memory(self) -> None:
        """No-op: on a CPU no device memory is cached."""

    def start_beam_search(self, *, beam: int, length_penalty: float = 1.0) -> BeamSearch:
        """Return an empty ``BeamSearch``, to which clips can be added between steps."""
        return BeamSearch(
            self._decoder, beam=beam, length_penalty=length_penalty, detokenize=self.vocabulary.decode
        )

    def align_words(self, encoded: FloatArray, hypothesis: Hypothesis) -> list[Word]:
        """Compute the timestamps of each word of a hypothesis of a clip with this encoder output (T, D)."""
        tokens = np.array([[EOS, *hypothesis.tokens[:-1]]])
        length = tokens.shape[1]
        source = self._decoder.project_source(encoded)
        needed = {value.name for value in self._alignment.get_inputs()}
        inputs = {
            "tokens": tokens,
            "positions": np.arange(PAD + 1, PAD + 1 + length)[None],
            "causal_mask": np.triu(np.full((length, length), -np.inf, np.float32), 1),
            **{f"source_{name}": value for name, value in source.items() if f"source_{name}" in needed},
        }
        attention = self._alignment.run(None, inputs)[0]
        pieces = [self.tokens[token] for token in hypothesis.tokens]
        return word_alignment.align_words(attention, pieces, token_scores=hypothesis.token_scores)

    def compute_word_probabilities(self, hypothesis: Hypothesis) -> list[float]:
        """Return the probability of each word of ``hypothesis.text`` given the previous ones."""
        pieces = self.vocabulary.to_pieces(hypothesis.tokens)
        return word_alignment.compute_word_probabilities(pieces, hypothesis.token_scores)


class OnnxCache:
    """Keys and values of the clips of a ``SlotTable``; see ``beam_search.Cache``.

    Attributes:
        table: rows and slots.
        source, past: by names like ``keys_0``, of layer 0: keys (row capacity, heads, d, N) and values (row capacity,
            heads, N, d), of N = frame capacity and slot capacity.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        self.table = SlotTable(width)
        heads, size = config.decoder_heads, config.decoder_dim // config.decoder_heads
        self.source: dict[str, FloatArray] = {}
        for number in range(config.decoder_layers):
            self.source[f"keys_{number}"] = np.zeros((0, heads, size, 0), np.float32)
            self.source[f"values_{number}"] = np.zeros((0, heads, 0, size), np.float32)
        self.past = dict(self.source)

    def add_clips(self, lengths: list[int]) -> range:
        """Allocate rows for clips of these frame counts; the caller must fill in ``source``."""
        rows = self.table.add_clips(lengths)
        for kind, size in ((self.source, self.table.frame_capacity), (self.past, self.table.slot_capacity)):
            for name, array in kind.items():
                kind[name] = extend(extend(array, 0, self.table.row_capacity), _get_axis(name), size)
        return rows

    def allocate_slots(self) -> NDArray[np.int64]:
        """Allocate a free slot (C, W) for the next token of every hypothesis."""
        slots = self.table.allocate_slots()
        for name, array in self.past.items():
            self.past[name] = extend(array, _get_axis(name), self.table.slot_capacity)
        return slots

    def move_row(self, row: int, to: int) -> None:
        """Move a clip to another row, overwriting it."""
        for array in (*self.source.values(), *self.past.values()):
            array[to] = array[row]
        self.table.move_row(row, to)

    def clear_row(self, row: int) -> None:
        """Zero a row whose values are not finite: an attention weight of 0 would still propagate them."""
        for array in (*self.source.values(), *self.past.values()):
            array[row] = 0

    def drop_last_row(self) -> None:
        """Free the last used row."""
        self.table.drop_last_row()

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Replace hypothesis (c, w) by the former (c, parents[c, w]); ``parents`` is (C, W)."""
        self.table.reorder(parents)


class OnnxDecoder:
    """The decoder of an ``OnnxModel``; see ``beam_search.StepDecoder``."""

    def __init__(self, config: ModelConfig, source_projection: Any, step: Any) -> None:
        self._config, self._source_projection, self._step = config, source_projection, step
        self._source_names = [output.name for output in source_projection.get_outputs()]
        self._step_names = [output.name for output in step.get_outputs()]

    def create_cache(self, width: int) -> OnnxCache:
        """Return an empty cache for clips with ``width`` hypotheses each."""
        return OnnxCache(self._config, width)

    def project_source(self, encoded: FloatArray) -> dict[str, FloatArray]:
        """Return the keys and values of an encoder output (T, D), as in ``OnnxCache.source`` with one row."""
        return dict(
            zip(
                self._source_names, self._source_projection.run(None, {"encoded": encoded[None]}), strict=True
            )
        )

    def prefill(self, clips: Sequence[FloatArray], cache: OnnxCache) -> None:
        """Add clips, encoder outputs (T, D), to a cache."""
        for row, clip in zip(cache.add_clips([len(clip) for clip in clips]), clips, strict=True):
            for name, values in self.project_source(clip).items():
                target = _swap_keys(name, cache.source[name][row])
                target[...] = 0
                target[:, : len(clip)] = _swap_keys(name, values[0])

    def find_candidates(self, step: StepInput, cache: OnnxCache) -> Candidates:
        """Append the newest token of every hypothesis, and find the best continuations."""
        table = cache.table
        # Before the newest tokens are added to it.
        ancestors = table.ancestor_mask[: table.clips].copy()
        slots = cache.allocate_slots()
        ancestors = extend(ancestors, 2, table.slot_capacity)
        audible = np.arange(table.frame_capacity) < table.lengths[: table.clips, None]
        inputs = {
            "tokens": step.tokens,
            "positions": PAD + table.positions[: table.clips, None],
            "past_mask": _to_bias(ancestors)[:, None],
            "source_mask": _to_bias(audible)[:, None, None],
        }
        for prefix, kind in (("past", cache.past), ("source", cache.source)):
            inputs.update({f"{prefix}_{name}": array[: table.clips] for name, array in kind.items()})
        outputs = dict(zip(self._step_names, self._step.run(None, inputs), strict=True))
        rows = np.arange(table.clips)[:, None]
        for name, array in cache.past.items():
            newest = outputs[name].transpose(0, 2, 1, 3)
            if _get_axis(name) == 3:
                array[rows, :, :, slots] = newest
            else:
                array[rows, :, slots] = newest
        return select_candidates(outputs["logits"], step)


def _get_axis(name: str) -> int:
    """Return the axis of tokens or frames in an array of ``OnnxCache``."""
    return 3 if name.startswith("keys") else 2


def _swap_keys(name: str, array: FloatArray) -> FloatArray:
    """Return keys (heads, d, N), and values as they are, as (heads, N, d)."""
    return array.swapaxes(1, 2) if name.startswith("keys") else array


def _to_bias(mask: NDArray[np.bool_]) -> FloatArray:
    return np.where(mask, np.float32(0), np.float32(-np.inf))
