"""Multi-head attention, shared by the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class KeysValues(NamedTuple):
    """Keys and values of attention, each (B, T, D), with the heads concatenated in D."""

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
        # Fused q, k and v projections, set by ``optimization``.
        self.qkv_proj: nn.Module | None = None

    def project_qkv(self, x: Tensor) -> tuple[Tensor, KeysValues]:
        """Project x (B, T, dim) to queries, keys and values, each (B, T, dim)."""
        if self.qkv_proj is None:
            return self.q_proj(x), KeysValues(self.k_proj(x), self.v_proj(x))
        queries, keys, values = self.qkv_proj(x).chunk(3, dim=-1)
        return queries, KeysValues(keys, values)

    def project_kv(self, source: Tensor) -> KeysValues:
        """Project (B, T, source_dim) to keys and values, which can be reused in several calls."""
        return KeysValues(self.k_proj(source), self.v_proj(source))

    def self_attention(self, x: Tensor, mask: Tensor | None = None, *, is_causal: bool = False) -> Tensor:
        """Apply self-attention to (B, T, dim); other arguments as in ``attend``."""
        queries, own = self.project_qkv(x)
        return self.attend(queries, own, mask, is_causal=is_causal)

    def self_attention_packed(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Apply self-attention within each clip of a packed batch (1, N, dim) without padding, N = sum(lengths)."""
        queries, own = self.project_qkv(x)
        parts = (torch.split(self._split_heads(whole), list(lengths), dim=2) for whole in (queries, *own))
        attended = [functional.scaled_dot_product_attention(*part) for part in zip(*parts, strict=True)]
        return self._merge_heads(torch.cat(attended, dim=2))

    def forward(self, x: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attend from (B, L, dim) to a source; other arguments as in ``attend``."""
        return self.attend(self.q_proj(x), source, mask)

    def attend(
        self, queries: Tensor, source: KeysValues, mask: Tensor | None = None, *, is_causal: bool = False
    ) -> Tensor:
        """Compute attention with the fused kernel and merge the heads.

        Args:
            queries: (B, L, dim). In beam search the hypotheses of one clip are the queries of one row, so that its
                keys and values are not copied for each hypothesis.
            source: of length T.
            mask: (B, 1, 1 or L, T), true where a key may be attended to.
            is_causal: query l attends only to keys 0 to l.

        Returns:
            (B, L, dim).
        """
        attended = functional.scaled_dot_product_attention(
            self._split_heads(queries),
            self._split_heads(source.keys),
            self._split_heads(source.values),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self._merge_heads(attended)

    def attend_with_weights(
        self, x: Tensor, source: KeysValues, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend, and also return the attention weights (B, heads, L, T), with gradient and before dropout."""
        queries = self._split_heads(self.q_proj(x))
        products = queries @ self._split_heads(source.keys).transpose(2, 3)
        scores = products.float() * queries.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        kept = functional.dropout(weights, self.dropout, self.training).to(x.dtype)
        return self._merge_heads(kept @ self._split_heads(source.values)), weights

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)

    def _merge_heads(self, attended: Tensor) -> Tensor:
        joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return joined
