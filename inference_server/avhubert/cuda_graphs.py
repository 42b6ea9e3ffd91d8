"""Decoder steps with static shapes and addresses, so that they can be captured and replayed as a CUDA graph.

A step is about a hundred small kernels, and launching them one by one leaves the GPU idle. A CUDA graph launches all
of them at once, but shapes and addresses must not change. A step therefore always covers the whole capacity of the
cache; the outputs of unused rows are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gorggle_server.avhubert.attention import Attention, KeysValues
from gorggle_server.avhubert.kv_cache import KVCache

if TYPE_CHECKING:
    from gorggle_server.avhubert.decoder import StepView

    CacheView: TypeAlias = "StaticCacheView | StepView"

_log = logging.getLogger(__name__)

# Capturing costs as much as some tens of steps: a cache that has just been created or grown may not live that long.
STEPS_BEFORE_CAPTURE = 24
# Maximum difference of a replay, relative to the largest logit: half-precision sums depend on their order.
TOLERANCE = 0.02


StepFunction = Callable[[Tensor, Tensor, "CacheView"], Tensor]
"""Maps tokens (C, W), positions (C,) and a view to logits (C, W, V)."""


class StaticCacheView:
    """A view of the whole capacity of a cache, and the inputs of a step, in tensors that are reused.

    Attributes:
        tokens: (clips, W).
        positions: (clips,).
        encoder_mask: bool (clips, 1, 1, frames).
    """

    def __init__(self, cache: KVCache) -> None:
        clips, width, slots = cache.table.ancestor_mask.shape
        device = cache.device
        self._cache, self._key = cache, get_shape_key(cache)
        self.tokens = torch.zeros(clips, width, device=device, dtype=torch.long)
        self.positions = torch.ones(clips, device=device, dtype=torch.long)
        # Unused rows write to their own first slots and attend to the first one only: an empty mask would give 0/0.
        first = torch.arange(width, device=device).expand(clips, -1)
        self._write_positions = torch.arange(clips, device=device).unsqueeze(1) * slots + first
        self._seen = torch.zeros(clips, 1, width, slots, device=device, dtype=torch.bool)
        self.encoder_mask = torch.zeros(
            clips, 1, 1, cache.table.frame_capacity, device=device, dtype=torch.bool
        )

    def matches(self, cache: KVCache) -> bool:
        """Return whether the cache's addresses and shapes are those of this view."""
        return get_shape_key(cache) == self._key

    def fill(self, tokens: Tensor, slots: NDArray[np.int64]) -> None:
        """Copy the inputs of a step into the static tensors: tokens (C, W) and their slots (C, W)."""
        table = self._cache.table
        clips, frames = table.clips, np.arange(table.frame_capacity)
        self.tokens[:clips] = tokens
        self.positions[:clips] = torch.from_numpy(table.positions[:clips])
        places = np.arange(clips)[:, None] * table.slot_capacity + slots
        self._write_positions[:clips] = torch.from_numpy(places)
        for mask, used in (
            (self._seen[:, 0], table.ancestor_mask[:clips]),
            (self.encoder_mask[:, 0, 0], frames < table.lengths[:clips, None]),
        ):
            mask[:clips] = torch.from_numpy(used)
            mask[clips:] = False
            mask[clips:, ..., 0] = True

    def source(self, layer: int) -> KeysValues:
        """Return the keys and values of all rows, each (clips, frames, D)."""
        keys, values = self._cache.source[layer]
        return KeysValues(keys, values)

    def self_attention(self, attention: Attention, layer: int, x: Tensor) -> Tensor:
        """As in ``StepView``, over all rows and slots."""
        queries, new = attention.project_qkv(x)
        past = self._cache.past[layer]
        for kind, rows in zip(past, new, strict=True):
            kind.flatten(0, 1).index_copy_(0, self._write_positions.flatten(), rows.flatten(0, 1))
        return attention.attend(queries, KeysValues(past[0], past[1]), self._seen)


class CudaGraphRunner:
    """Runs the steps of one cache with static shapes, eagerly at first, then from a captured CUDA graph.

    The first replay is compared with the eager step. If the capture fails or the results differ, graphs are disabled.
    """

    def __init__(self, step: StepFunction) -> None:
        self._step = step
        self._view: StaticCacheView | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None
        self._steps, self._may_capture = 0, True

    def run_step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Run ``Decoder.step``."""
        slots = cache.allocate_slots()
        if self._view is None or not self._view.matches(cache):
            self._view, self._graph, self._steps = StaticCacheView(cache), None, 0
        view = self._view
        view.fill(tokens, slots)
        self._steps += 1
        clips = cache.table.clips
        if self._graph is not None:
            self._graph.replay()
            assert self._logits is not None
            return self._logits[:clips]
        logits = self._step(view.tokens, view.positions, view)
        if self._may_capture and self._steps >= STEPS_BEFORE_CAPTURE and logits.device.type == "cuda":
            self._capture(view, logits[:clips])
        return logits[:clips]

    def _capture(self, view: StaticCacheView, expected: Tensor) -> None:
        """Capture the step just run and compare a replay, which writes the same values into the same slots."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = self._step(view.tokens, view.positions, view)
            graph.replay()
            difference = float((logits[: len(expected)] - expected).abs().max())
        except RuntimeError as error:
            self._may_capture = False
            _log.warning("CUDA graphs are disabled: the capture failed: %s", error)
            return
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            self._may_capture = False
            _log.warning("CUDA graphs are disabled: a replay differed by %g", difference)
            return
        self._graph, self._logits = graph, logits


class GraphedKVCache(KVCache):
    """A KV cache whose steps are run by a ``CudaGraphRunner``."""

    def __init__(self, *args: Any, step: StepFunction) -> None:
        super().__init__(*args)
        self.graph_runner = CudaGraphRunner(step)


def get_shape_key(cache: KVCache) -> tuple[int, ...]:
    """Return a key of the cache's addresses and shapes, which changes when the cache grows."""
    return (cache.source.data_ptr(), cache.past.data_ptr(), *cache.source.shape, *cache.past.shape)
