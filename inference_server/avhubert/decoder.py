"""The transformer decoder: whole sequences with teacher forcing, or one token at a time from a KV cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gorggle_server.avhubert.attention import Attention, KeysValues
from gorggle_server.avhubert.beam_search import Candidates, StepInput, select_candidates
from gorggle_server.avhubert.config import EOS, PAD, ModelConfig
from gorggle_server.avhubert.cuda_graphs import GraphedKVCache
from gorggle_server.avhubert.kv_cache import KVCache
from gorggle_server.avhubert.sparse_self_attention import AncestorIndex

if TYPE_CHECKING:
    from gorggle_server.avhubert.cuda_graphs import CacheView


def sinusoidal_positions(positions: Tensor, dim: int) -> Tensor:
    """Return sinusoidal position embeddings (..., dim), sines before cosines; zero at the padding position.

    Source: "Attention Is All You Need", in tensor2tensor's arrangement, which fairseq uses.
    """
    half = dim // 2
    step = math.log(10_000) / max(half - 1, 1)
    frequencies = torch.exp(torch.arange(half, device=positions.device, dtype=torch.float32) * -step)
    angles = positions.unsqueeze(-1) * frequencies
    table = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return table.masked_fill(positions.unsqueeze(-1) == PAD, 0.0)


class StepView:
    """Access to the used part of a cache during one step; ``positions`` already include the new token.

    Attributes:
        encoder_mask: bool (C, 1, 1, T), false where a clip is padded; None without padding.
    """

    def __init__(self, cache: KVCache, heads: int) -> None:
        slots, table, device = cache.allocate_slots(), cache.table, cache.device
        self._cache = cache
        places = np.arange(table.clips)[:, None] * table.slot_capacity + slots
        self._write_positions = torch.from_numpy(places.flatten()).to(device)
        mask = torch.from_numpy(table.ancestor_mask[: table.clips, :, : table.slots])
        self._seen = mask.to(device).unsqueeze(1)
        self._ancestors: AncestorIndex | None = None
        lengths = table.positions[: table.clips]
        if AncestorIndex.is_worthwhile(table.slots, int(lengths.max()), cache.past):
            self._ancestors = AncestorIndex(mask, torch.from_numpy(lengths), table.slot_capacity, heads)
        audible = np.arange(table.frames) < table.lengths[: table.clips, None]
        self.encoder_mask = None if audible.all() else torch.from_numpy(audible[:, None, None, :]).to(device)

    def source(self, layer: int) -> KeysValues:
        """Return the encoder output's keys and values, each (C, T, D)."""
        clips, frames = self._cache.table.clips, self._cache.table.frames
        keys, values = self._cache.source[layer]
        return KeysValues(keys[:clips, :frames], values[:clips, :frames])

    def self_attention(self, attention: Attention, layer: int, x: Tensor) -> Tensor:
        """Write the newest tokens x (C, W, D) into the cache and attend from them to all tokens of their hypotheses."""
        queries, new = attention.project_qkv(x)
        past = self._cache.past[layer]
        for kind, rows in zip(past, new, strict=True):
            kind.flatten(0, 1).index_copy_(0, self._write_positions, rows.flatten(0, 1))
        if self._ancestors is not None:
            result: Tensor = attention.out_proj(self._ancestors.attend(queries, *past))
            return result
        clips, slots = self._cache.table.clips, self._cache.table.slots
        seen = KeysValues(past[0, :clips, :slots], past[1, :clips, :slots])
        return attention.attend(queries, seen, self._seen)


class DecoderLayer(nn.Module):
    """A pre-norm layer: self-attention, cross-attention and a ReLU feed-forward network."""

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
        self, x: Tensor, source: KeysValues, mask: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Process all tokens (B, L, D); with ``need_weights``, also return weights (B, heads, L, T)."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.dropout(self.self_attn.self_attention(normed, is_causal=True))
        normed, weights = self.encoder_attn_layer_norm(x), None
        if need_weights:
            attended, weights = self.encoder_attn.attend_with_weights(normed, source, mask)
        else:
            attended = self.encoder_attn(normed, source, mask)
        return self._feed_forward(x + self.dropout(attended)), weights

    def step(self, x: Tensor, layer: int, view: CacheView) -> Tensor:
        """Process the newest token of every hypothesis (C, W, D) and write its keys and values into the cache."""
        x = x + view.self_attention(self.self_attn, layer, self.self_attn_layer_norm(x))
        queries = self.encoder_attn.q_proj(self.encoder_attn_layer_norm(x))
        x = x + self.encoder_attn.attend(queries, view.source(layer), view.encoder_mask)
        return self._feed_forward(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(functional.relu(self.fc1(self.final_layer_norm(x))))
        result: Tensor = x + self.dropout(self.fc2(hidden))
        return result


class Decoder(nn.Module):
    """Predicts the next token from the previous tokens and the encoder's output."""

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
        self.position_table: Tensor | None
        self.register_buffer("position_table", None)
        self._positions = PAD + 1 + config.max_target_size
        # Set by ``optimization`` on a GPU.
        self.use_cuda_graphs = False
        # Replaces ``output_weight`` after ``optimization`` on a CPU.
        self.output_proj: nn.Module | None = None
        if not config.share_embeddings:
            self.embed_out = nn.Parameter(torch.empty(config.vocabulary_size, config.decoder_dim))
            nn.init.normal_(self.embed_out, 0.0, config.decoder_dim**-0.5)

    def forward(
        self, tokens: Tensor, encoder_out: Tensor, padding_mask: Tensor | None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Decode whole sequences with teacher forcing.

        Args:
            tokens: (B, L), starting with ``</s>``; padding only on the right.
            encoder_out: (B, T, D).
            padding_mask: (B, T), true where padded.
            need_weights: also return the cross-attention weights, averaged over the alignment heads, with gradient.

        Returns:
            Logits (B, L, V), and weights (B, L, T) or None.
        """
        real = tokens.ne(PAD)
        positions = real.cumsum(1) * real + PAD
        x = self.dropout(self._embed(tokens, positions))
        visible = None if padding_mask is None else ~padding_mask[:, None, None, :]
        weights: list[Tensor] = []
        for number, layer in enumerate(self._layers):
            heads = self._alignment_heads_of_layer(number) if need_weights else []
            source = layer.encoder_attn.project_kv(encoder_out)
            x, found = layer(x, source, visible, need_weights=bool(heads))
            if found is not None:
                weights.append(found[:, heads])
        alignment = torch.cat(weights, dim=1).mean(dim=1) if need_weights else None
        return self._project_logits(x), alignment

    def create_cache(self, width: int) -> KVCache:
        """Return an empty cache for clips with ``width`` hypotheses each."""
        weight = self.embed_tokens.weight
        size = (len(self.layers), weight.shape[1], width, weight.device, weight.dtype)
        return GraphedKVCache(*size, step=self._run_step) if self.use_cuda_graphs else KVCache(*size)

    @torch.inference_mode()
    def prefill(self, clips: Sequence[Tensor], cache: KVCache) -> None:
        """Add clips to a cache: project their encoder outputs, each (T, D)."""
        lengths = [len(clip) for clip in clips]
        rows = cache.add_clips(lengths)
        padded = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
        for number, layer in enumerate(self._layers):
            for kind, projection in enumerate((layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)):
                cache.source[number, kind, rows.start : rows.stop, : max(lengths)] = projection(padded)

    @torch.inference_mode()
    def find_candidates(self, step: StepInput, cache: KVCache) -> Candidates:
        """Append the newest token of every hypothesis, and find the best continuations; see ``StepDecoder``."""
        logits = self.step(torch.from_numpy(step.tokens).to(cache.device), cache).float()
        if cache.device.type == "cpu":
            return select_candidates(logits.numpy(), step)
        return _select_on_device(logits, step)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Append one token to every hypothesis of a running batch and score the next.

        Args:
            tokens: (C, W), the newest token of each hypothesis.
            cache: of these C clips; it is advanced.

        Returns:
            Logits (C, W, V).
        """
        if isinstance(cache, GraphedKVCache):
            return cache.graph_runner.run_step(tokens, cache)
        view = StepView(cache, self._layers[0].self_attn.heads)
        positions = torch.from_numpy(cache.table.positions[: cache.table.clips]).to(cache.device)
        return self._run_step(tokens, positions, view)

    def _run_step(self, tokens: Tensor, positions: Tensor, view: CacheView) -> Tensor:
        x = self._embed(tokens, PAD + positions.unsqueeze(1))
        for number, layer in enumerate(self._layers):
            x = layer.step(x, number, view)
        return self._project_logits(x)

    def precompute_positions(self) -> None:
        """Store the embeddings of all positions in a table."""
        weight = self.embed_tokens.weight
        positions = torch.arange(self._positions, device=weight.device)
        self.position_table = sinusoidal_positions(positions, weight.shape[1]).to(weight.dtype)

    @property
    def output_weight(self) -> Tensor:
        """Weight of the output projection, (V, D)."""
        return self.embed_out if hasattr(self, "embed_out") else self.embed_tokens.weight

    @property
    def _layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))

    def _alignment_heads_of_layer(self, layer: int) -> list[int]:
        if self.alignment_heads:
            return [head for of_layer, head in self.alignment_heads if of_layer == layer]
        is_last = layer == len(self.layers) - 1
        return list(range(self._layers[layer].encoder_attn.heads)) if is_last else []

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.embed_tokens(tokens) * self.embedding_scale
        if self.position_table is None:
            return embedded + sinusoidal_positions(positions, embedded.shape[-1]).to(embedded.dtype)
        return embedded + functional.embedding(positions, self.position_table)

    def _project_logits(self, x: Tensor) -> Tensor:
        normed = self.layer_norm(x)
        if self.output_proj is None:
            return functional.linear(normed, self.output_weight)
        logits: Tensor = self.output_proj(normed)
        return logits


def _select_on_device(logits: Tensor, step: StepInput) -> Candidates:
    """As ``select_candidates``, on a GPU: only the candidates are copied to the host."""
    device, (_, width, vocabulary) = logits.device, logits.shape
    is_first = torch.from_numpy(step.is_first).to(device)[:, None]
    is_last = torch.from_numpy(step.is_last).to(device)[:, None]
    # One reduction checks all values: inf and nan both propagate through the sum.
    is_finite = torch.isfinite(logits.sum(dim=(1, 2)))
    scores = logits.masked_fill(~is_finite[:, None, None], 0.0).log_softmax(dim=-1)
    scores[:, :, PAD] = -math.inf
    ends = scores[:, :, EOS].masked_fill(is_first, -math.inf)
    scores.masked_fill_(is_last[:, :, None], -math.inf)
    scores[:, :, EOS] = ends
    totals = scores + torch.from_numpy(step.totals).to(device).unsqueeze(2)
    best, places = totals.flatten(1).topk(2 * width)
    # One copy, which waits for the step: integers up to 2^53 are exact in float64.
    copied = torch.cat((best.double(), places.double(), is_finite.double()[:, None]), dim=1).cpu().numpy()
    found = copied[:, 2 * width : 4 * width].astype(np.int64)
    return Candidates(
        copied[:, : 2 * width].astype(np.float32), found // vocabulary, found % vocabulary, copied[:, -1] > 0
    )
