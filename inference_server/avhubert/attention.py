"""Multi-head attention, shared by the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class KeysValues(NamedTuple):
    """What attention looks at: keys and values, each (B, T, D), the heads behind each other in D."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Scaled dot-product attention with projections, as in "Attention Is All You Need"."""

    def __init__(self, dim: int, heads: int, source_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(source_dim, dim)
        self.v_proj = nn.Linear(source_dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        # The three projections as one product, where a model was prepared for reading (see ``preparation``).
        self.qkv_proj: nn.Module | None = None

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, KeysValues]:
        """What x (B, T, dim) asks of itself: queries, keys and values, each (B, T, dim)."""
        if self.qkv_proj is None:
            return self.q_proj(x), KeysValues(self.k_proj(x), self.v_proj(x))
        queries, keys, values = self.qkv_proj(x).chunk(3, dim=-1)
        return queries, KeysValues(keys, values)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Project (B, T, source_dim) once; the result may serve many calls."""
        return KeysValues(self.k_proj(source), self.v_proj(source))

    def to_itself(self, x: Tensor, visible: Tensor | None = None, *, is_causal: bool = False) -> Tensor:
        """Self-attention of (B, T, dim); the rest as in ``joined``."""
        queries, own = self.queries_keys_values(x)
        return self.joined(queries, own, visible, is_causal=is_causal)

    def within_clips(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Self-attention of clips that stand behind each other without padding, (1, N, dim), N the sum of lengths."""
        queries, own = self.queries_keys_values(x)
        parts = (torch.split(self._split(whole), list(lengths), dim=2) for whole in (queries, *own))
        attended = [functional.scaled_dot_product_attention(*part) for part in zip(*parts, strict=True)]
        return self._out(torch.cat(attended, dim=2))

    def forward(self, x: Tensor, source: KeysValues, visible: Tensor | None = None) -> Tensor:
        """Attention of (B, L, dim) to a source; the rest as in ``joined``."""
        return self.joined(self.q_proj(x), source, visible)

    def joined(
        self, queries: Tensor, source: KeysValues, visible: Tensor | None = None, *, is_causal: bool = False
    ) -> Tensor:
        """Attend without looking at the weights, and bring the heads together.

        Args:
            queries: (B, L, dim). The hypotheses of one clip stand behind each other as queries of one row: its keys
                and values are read in place instead of being copied for each.
            source: T long.
            visible: (B, 1, 1 or L, T), true where a key may be seen.
            is_causal: each of the L sees only itself and those before it in the source.

        Returns:
            (B, L, dim).
        """
        attended = functional.scaled_dot_product_attention(
            self._split(queries),
            self._split(source.keys),
            self._split(source.values),
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self._out(attended)

    def with_weights(
        self, x: Tensor, source: KeysValues, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend and return the weights too, (B, heads, L, T), with gradient and before dropout."""
        queries = self._split(self.q_proj(x))
        scores = (queries @ self._split(source.keys).transpose(2, 3)).float() * queries.shape[-1] ** -0.5
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        weights = scores.softmax(dim=-1)
        kept = functional.dropout(weights, self.dropout, self.training).to(x.dtype)
        return self._out(kept @ self._split(source.values)), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)

    def _out(self, attended: Tensor) -> Tensor:
        joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return joined
