"""The transformer decoder: whole sentences under teacher forcing, or one unit at a time from a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_server.avhubert.attention import Attention, KeysValues
from inference_server.avhubert.config import PAD, ModelConfig


@dataclass
class DecoderState:
    """What one step of incremental decoding keeps for the next.

    ``source`` holds, for every layer, the keys and values of the clips, one row a clip;
    ``past`` those of the units so far, one row a hypothesis; ``visible`` is (clips, 1, 1, T) or None.
    """

    source: list[KeysValues]
    visible: Tensor | None
    past: list[KeysValues]
    position: int = 0

    def reorder(self, hypotheses: Tensor) -> None:
        """Let row *i* continue what was row ``hypotheses[i]``."""
        self.past = [layer.select(hypotheses) for layer in self.past]

    def keep_clips(self, clips: Tensor) -> None:
        """Drop all clips but these; call ``reorder`` for their hypotheses as well."""
        self.source = [layer.select(clips) for layer in self.source]
        if self.visible is not None:
            self.visible = self.visible.index_select(0, clips)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sines then cosines of geometric frequencies, (..., dim); zero at the position of padding.

    Source: "Attention Is All You Need", in the arrangement of tensor2tensor that the reference follows.
    """
    half = dim // 2
    step = math.log(10_000) / max(half - 1, 1)
    frequencies = torch.exp(torch.arange(half, device=positions.device, dtype=torch.float32) * -step)
    angles = positions.unsqueeze(-1) * frequencies
    table = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return table.masked_fill(positions.unsqueeze(-1) == PAD, 0.0)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a ReLU feed-forward network, each normalised before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.decoder_dim, config.decoder_heads
        self.self_attn = Attention(dim, heads, dim, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_attn = Attention(dim, heads, config.encoder_dim, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self, x: Tensor, source: KeysValues, visible: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """All units at once, (B, L, D); the second result is (B, heads, L, T) if asked for."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.dropout(self.self_attn(normed, self.self_attn.keys_values(normed), is_causal=True))
        normed, weights = self.encoder_attn_layer_norm(x), None
        if need_weights:
            attended, weights = self.encoder_attn.with_weights(normed, source, visible)
        else:
            attended = self.encoder_attn(normed, source, visible)
        return self._feed_forward(x + self.dropout(attended)), weights

    def step(
        self, x: Tensor, past: KeysValues | None, source: KeysValues, visible: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        """One more unit of every hypothesis, (R, 1, D), and the units so far, with this one."""
        normed = self.self_attn_layer_norm(x)
        present = self.self_attn.keys_values(normed)
        if past is not None:
            present = past.followed_by(present)
        x = x + self.self_attn(normed, present)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), source, visible)
        return self._feed_forward(x), present

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(functional.relu(self.fc1(self.final_layer_norm(x))))
        result: Tensor = x + self.dropout(self.fc2(hidden))
        return result


class Decoder(nn.Module):
    """Units so far and the encoder's output to scores of the next unit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding_scale = math.sqrt(config.decoder_dim) if config.scale_embeddings else 1.0
        self.alignment_heads = config.alignment_heads
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.decoder_dim, padding_idx=PAD)
        nn.init.normal_(self.embed_tokens.weight, 0.0, config.decoder_dim**-0.5)
        with torch.no_grad():
            self.embed_tokens.weight[PAD].zero_()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.decoder_dim)
        self.dropout = nn.Dropout(config.dropout)
        if not config.share_embeddings:
            self.embed_out = nn.Parameter(torch.empty(config.vocabulary_size, config.decoder_dim))
            nn.init.normal_(self.embed_out, 0.0, config.decoder_dim**-0.5)

    def forward(
        self, tokens: Tensor, encoder_out: Tensor, padding_mask: Tensor | None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing.

        Args:
            tokens: (B, L), starting with ``</s>``; padding only on the right.
            encoder_out: (B, T, D).
            padding_mask: (B, T), true where padded.
            need_weights: return the cross-attention too, averaged over the alignment heads, with gradient.

        Returns:
            Logits (B, L, V), and weights (B, L, T) or None.
        """
        real = tokens.ne(PAD)
        positions = real.cumsum(1) * real + PAD
        x = self.dropout(self._embedded(tokens, positions))
        visible = _visible(padding_mask)
        weights: list[Tensor] = []
        for number, layer in enumerate(self._layers):
            heads = self._heads_of(number) if need_weights else []
            source = layer.encoder_attn.keys_values(encoder_out)
            x, found = layer(x, source, visible, need_weights=bool(heads))
            if found is not None:
                weights.append(found[:, heads])
        alignment = torch.cat(weights, dim=1).mean(dim=1) if need_weights else None
        return self._logits(x), alignment

    def start(self, encoder_out: Tensor, padding_mask: Tensor | None) -> DecoderState:
        """Project (B, T, D) once for all steps to come."""
        source = [layer.encoder_attn.keys_values(encoder_out) for layer in self._layers]
        return DecoderState(source, _visible(padding_mask), past=[])

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one unit to every hypothesis and score the next.

        Args:
            tokens: (R,), the newest unit of each hypothesis; R a multiple of the number of clips,
                the hypotheses of one clip next to each other.
            state: what ``start`` or the step before left; it is advanced.

        Returns:
            Logits (R, V).
        """
        state.position += 1
        x = self._embedded(tokens.unsqueeze(1), torch.tensor([[PAD + state.position]], device=tokens.device))
        presents = []
        for number, layer in enumerate(self._layers):
            past = state.past[number] if state.past else None
            x, present = layer.step(x, past, state.source[number], state.visible)
            presents.append(present)
        state.past = presents
        return self._logits(x).squeeze(1)

    @property
    def _layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))

    def _heads_of(self, layer: int) -> list[int]:
        if self.alignment_heads:
            return [head for of_layer, head in self.alignment_heads if of_layer == layer]
        is_last = layer == len(self.layers) - 1
        return list(range(self._layers[layer].encoder_attn.heads)) if is_last else []

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.embed_tokens(tokens) * self.embedding_scale
        return embedded + sinusoids(positions, embedded.shape[-1]).to(embedded.dtype)

    def _logits(self, x: Tensor) -> Tensor:
        weight = self.embed_out if hasattr(self, "embed_out") else self.embed_tokens.weight
        return functional.linear(self.layer_norm(x), weight)


def _visible(padding_mask: Tensor | None) -> Tensor | None:
    return None if padding_mask is None else ~padding_mask[:, None, None, :]
