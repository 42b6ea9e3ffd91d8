"""Multi-head attention, shared by the encoder and the decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class KeysValues(NamedTuple):
    """What attention looks at: keys and values, each (B, heads, T, D/heads)."""

    keys: Tensor
    values: Tensor

    def select(self, rows: Tensor) -> KeysValues:
        """The given rows of the batch, in the given order."""
        return KeysValues(self.keys.index_select(0, rows), self.values.index_select(0, rows))

    def followed_by(self, more: KeysValues) -> KeysValues:
        """These, then ``more``, along time."""
        return KeysValues(torch.cat((self.keys, more.keys), 2), torch.cat((self.values, more.values), 2))


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

    def keys_values(self, source: Tensor) -> KeysValues:
        """Project (B, T, source_dim) once; the result may serve many calls."""
        return KeysValues(self._split(self.k_proj(source)), self._split(self.v_proj(source)))

    def forward(
        self, x: Tensor, source: KeysValues, visible: Tensor | None = None, *, is_causal: bool = False
    ) -> Tensor:
        """Attend without looking at the weights.

        Args:
            x: (R, L, dim). R is B, or B * K when K hypotheses of each clip share one source.
            source: of B clips, T long.
            visible: (B, 1, 1 or L, T), true where a key may be seen; needs L = 1 or R = B where it varies with L.
            is_causal: each of the L sees only itself and those before it in the source.

        Returns:
            (R, L, dim).
        """
        queries = self._queries(x, source)
        attended = functional.scaled_dot_product_attention(
            queries,
            source.keys,
            source.values,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self._joined(attended, x)

    def with_weights(
        self, x: Tensor, source: KeysValues, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend and return the weights too, (B, heads, L, T), with gradient and before dropout."""
        queries = self._queries(x, source)
        scores = (queries @ source.keys.transpose(2, 3)).float() * queries.shape[-1] ** -0.5
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        weights = scores.softmax(dim=-1)
        kept = functional.dropout(weights, self.dropout, self.training).to(x.dtype)
        return self._joined(kept @ source.values, x), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)

    def _queries(self, x: Tensor, source: KeysValues) -> Tensor:
        # The hypotheses of one clip stand behind each other as queries of one batch element: its keys
        # and values are read in place instead of being copied for each.
        shared = self.q_proj(x).reshape(source.keys.shape[0], -1, x.shape[-1])
        return self._split(shared)

    def _joined(self, attended: Tensor, x: Tensor) -> Tensor:
        joined: Tensor = self.out_proj(attended.transpose(1, 2).reshape(x.shape))
        return joined
