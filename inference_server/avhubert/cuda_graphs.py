"""The decoder's step in shapes and at addresses that stay, so that a GPU can replay it as one graph.

A step is some hundred small operations, and a GPU waits for each to be launched. A CUDA graph launches all of them at once,
if only the numbers in the tensors change and never the tensors. So here a step covers all that the cache has room for:
rows of clips that are not there are worked out too, and nobody looks at what comes out of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from gorggle_server.avhubert.attention import Attention, KeysValues

if TYPE_CHECKING:
    from gorggle_server.avhubert.kv_cache import KVCache

_log = logging.getLogger(__name__)

# A graph takes some tens of steps to pay for: a cache that grew, or that has just begun, may not live for as many.
STEPS_BEFORE_CAPTURE = 24
# Half-precision sums in another order differ by so much of the largest score.
TOLERANCE = 0.02


class CacheView(Protocol):
    """What a decoder's layer reads and writes of a cache during one step."""

    @property
    def encoder_mask(self) -> Tensor | None:
        """Bool (C, 1, 1, T), false where a clip is padded; None where none is."""
        ...

    def source(self, layer: int) -> KeysValues:
        """Keys and values of the clips, each (C, T, D)."""
        ...

    def self_attention(self, attention: Attention, layer: int, x: Tensor) -> Tensor:
        """Let the newest units, (C, W, D), look at themselves and those before; they are written into the cache."""
        ...


StepFunction = Callable[[Tensor, Tensor, CacheView], Tensor]
"""From tokens (C, W), positions (C,) and a view to logits (C, W, V)."""


class StaticCacheView:
    """A view of all that a cache has room for, and the inputs of a step, in tensors that stay.

    Attributes:
        tokens: (clips, W).
        positions: (clips,).
        encoder_mask: bool (clips, 1, 1, frames).
    """

    def __init__(self, cache: KVCache) -> None:
        clips, width, slots = cache.seen.shape
        device = cache.seen.device
        self._cache, self._key = cache, get_shape_key(cache)
        self.tokens = torch.zeros(clips, width, device=device, dtype=torch.long)
        self.positions = torch.ones(clips, device=device, dtype=torch.long)
        # Rows without a clip write into their own first slots, and look at the first alone: at nothing would be 0/0.
        first = torch.arange(width, device=device).expand(clips, -1)
        self._write_positions = torch.arange(clips, device=device).unsqueeze(1) * slots + first
        self._seen = torch.zeros(clips, 1, width, slots, device=device, dtype=torch.bool)
        self.encoder_mask = torch.zeros(
            clips, 1, 1, cache.encoder_mask.shape[1], device=device, dtype=torch.bool
        )

    def matches(self, cache: KVCache) -> bool:
        """Whether the cache is still where it was, and as large."""
        return get_shape_key(cache) == self._key

    def fill(self, tokens: Tensor, slots: Tensor) -> None:
        """Take in a step: tokens (C, W) and the slots that they are given, likewise."""
        cache, clips = self._cache, self._cache.clips
        rows = torch.arange(clips, device=slots.device).unsqueeze(1)
        self.tokens[:clips] = tokens
        self.positions[:clips] = cache.positions[:clips]
        self._write_positions[:clips] = rows * cache.seen.shape[2] + slots
        for mask, table in ((self._seen[:, 0], cache.seen), (self.encoder_mask[:, 0, 0], cache.encoder_mask)):
            mask[:clips] = table[:clips]
            mask[clips:] = False
            mask[clips:, ..., 0] = True

    def source(self, layer: int) -> KeysValues:
        """Keys and values of all rows, each (clips, frames, D)."""
        keys, values = self._cache.source[layer]
        return KeysValues(keys, values)

    def self_attention(self, attention: Attention, layer: int, x: Tensor) -> Tensor:
        """As in ``CacheView``, over all rows and slots."""
        queries, new = attention.project_qkv(x)
        past = self._cache.past[layer]
        for kind, rows in zip(past, new, strict=True):
            kind.flatten(0, 1).index_copy_(0, self._write_positions.flatten(), rows.flatten(0, 1))
        return attention.attend(queries, KeysValues(past[0], past[1]), self._seen)


class CudaGraphRunner:
    """Steps of one cache in fixed shapes: one by one at first, and from a graph where that is possible.

    Before a graph is used, what it gives is compared with the step that it was made from. Where the capture fails, or the
    two differ, everything goes on without graphs.
    """

    def __init__(self, step: StepFunction) -> None:
        self._step = step
        self._view: StaticCacheView | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None
        self._steps, self._may_capture = 0, True

    def run_step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Add one unit to every hypothesis: as ``Decoder.step``, which has counted it in ``positions``."""
        slots = cache.allocate_slots()
        if self._view is None or not self._view.matches(cache):
            self._view, self._graph, self._steps = StaticCacheView(cache), None, 0
        view = self._view
        view.fill(tokens, slots)
        self._steps += 1
        if self._graph is not None:
            self._graph.replay()
            assert self._logits is not None
            return self._logits[: cache.clips]
        logits = self._step(view.tokens, view.positions, view)
        if self._may_capture and self._steps >= STEPS_BEFORE_CAPTURE and logits.device.type == "cuda":
            self._capture(view, logits[: cache.clips])
        return logits[: cache.clips]

    def _capture(self, view: StaticCacheView, expected: Tensor) -> None:
        """Record the step just made, and see that a replay gives the same: it writes the same into the same slots."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = self._step(view.tokens, view.positions, view)
            graph.replay()
            difference = float((logits[: len(expected)] - expected).abs().max())
        except RuntimeError as error:
            self._may_capture = False
            _log.warning("the search goes on without CUDA graphs: capturing one failed: %s", error)
            return
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            self._may_capture = False
            _log.warning("the search goes on without CUDA graphs: a replay differed by %g", difference)
            return
        self._graph, self._logits = graph, logits


def get_shape_key(cache: KVCache) -> tuple[int, ...]:
    """Changes when a cache has grown."""
    return (cache.source.data_ptr(), cache.past.data_ptr(), *cache.seen.shape, cache.encoder_mask.shape[1])
