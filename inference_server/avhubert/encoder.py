"""The audio-visual encoder: front-ends, fusion and transformer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gorggle_server.avhubert.attention import Attention
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.frontend import AudioFrontend, VideoFrontend


class ConvolutionalPositions(nn.Module):
    """Convolutional position embedding with weight normalisation per tap."""

    def __init__(self, dim: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.padding = kernel_size // 2
        deviation = (4.0 / (kernel_size * dim)) ** 0.5  # wav2vec 2.0's
        taps = dim * dim // groups
        self.weight_g = nn.Parameter(torch.full((1, 1, kernel_size), deviation * taps**0.5))
        self.weight_v = nn.Parameter(torch.empty(dim, dim // groups, kernel_size))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.weight_v, 0.0, deviation)
        self.register_buffer("precomputed_kernel", None)

    def precompute_kernel(self) -> None:
        """Compute the kernel once; later changes of the parameters have no effect."""
        self.precomputed_kernel = self._compute_kernel().detach()

    def _compute_kernel(self) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(self.weight_v, dim=(0, 1), keepdim=True)
        return self.weight_v * (self.weight_g / lengths)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) to (B, D, T + 1) for an even kernel."""
        fixed: Tensor | None = self.precomputed_kernel
        kernel = self._compute_kernel() if fixed is None else fixed
        if x.device.type != "cpu":
            return self._convolve(x, kernel, self.bias)
        # In float32: in bfloat16, oneDNN's AMX kernel returns wrong values for 192 channels in 16 groups and 32 taps.
        with torch.autocast("cpu", enabled=False):
            return self._convolve(x.float(), kernel.float(), self.bias.float()).to(x.dtype)

    def _convolve(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return functional.conv1d(x, kernel, bias, padding=self.padding, groups=self.groups)


class SamePadGelu(nn.Module):
    """GELU, after dropping the extra output frame of an even kernel."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.excess = 1 - kernel_size % 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T + excess) to (B, D, T)."""
        return functional.gelu(x[..., : x.shape[-1] - self.excess])


class EncoderLayer(nn.Module):
    """A pre-norm layer: self-attention and a GELU feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_dim
        self.self_attn = Attention(dim, config.encoder_heads, dim, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) to (B, T, D); ``mask`` is (B, 1, 1, T), false where padded."""
        x = x + self.dropout(self.self_attn.self_attention(self.self_attn_layer_norm(x), mask))
        return self._feed_forward(x)

    def forward_packed(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Process a packed batch (1, N, D) without padding; for inference only."""
        return self._feed_forward(
            x + self.self_attn.self_attention_packed(self.self_attn_layer_norm(x), lengths)
        )

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(functional.gelu(self.fc1(self.final_layer_norm(x))))
        result: Tensor = x + self.dropout(self.fc2(hidden))
        return result


class TransformerEncoder(nn.Module):
    """Convolutional positions, the layers and a final layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, kernel_size = config.encoder_dim, config.position_kernel_size
        self.pos_conv = nn.Sequential(
            ConvolutionalPositions(dim, kernel_size, config.position_groups), SamePadGelu(kernel_size)
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        # Set by ``optimization`` on a CPU.
        self.skip_padding = False

    def forward(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        visible = None
        if padding_mask is not None:
            lengths = _get_clip_lengths(padding_mask) if self.skip_padding else None
            if lengths is not None:
                return self._forward_packed(x, lengths)
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0.0)
            visible = ~padding_mask[:, None, None, :]
        x = self.dropout(x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2))
        for layer in self._layers:
            x = layer(x, visible)
        result: Tensor = self.layer_norm(x)
        return result

    def _forward_packed(self, x: Tensor, lengths: list[int]) -> Tensor:
        """As ``forward`` on a packed batch; padded frames of the result are zero."""
        clips = [clip[None, :length] for clip, length in zip(x, lengths, strict=True)]
        clips = [clip + self.pos_conv(clip.transpose(1, 2)).transpose(1, 2) for clip in clips]
        joined = torch.cat(clips, dim=1)
        for layer in self._layers:
            joined = layer.forward_packed(joined, lengths)
        found = self.layer_norm(joined)[0].split(lengths)
        spread = x.new_zeros(x.shape)
        for row, clip in zip(spread, found, strict=True):
            row[: len(clip)] = clip
        return spread

    @property
    def _layers(self) -> list[EncoderLayer]:
        return cast("list[EncoderLayer]", list(self.layers))


def _get_clip_lengths(padding_mask: Tensor) -> list[int] | None:
    """Return the valid frames of each clip; None if a clip has none, or padding that is not at its end."""
    lengths: list[int] = (~padding_mask).sum(1).tolist()
    expected = torch.arange(padding_mask.shape[1], device=padding_mask.device) >= torch.tensor(
        lengths, device=padding_mask.device
    ).unsqueeze(1)
    return lengths if min(lengths) and torch.equal(expected, padding_mask) else None


class AudioVisualEncoder(nn.Module):
    """Front-ends of both modalities, fusion by concatenation, and the transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_dim
        self.feature_extractor_audio = AudioFrontend(config)
        self.feature_extractor_video = VideoFrontend(config)
        self.layer_norm = nn.LayerNorm(2 * dim)
        self.post_extract_proj = nn.Linear(2 * dim, dim)
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.encoder = TransformerEncoder(config)

    def forward(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        padding_mask: Tensor | None = None,
        *,
        has_video: Tensor | None = None,
        has_audio: Tensor | None = None,
    ) -> Tensor:
        """Encode a batch; features of a missing modality are zeros.

        Args:
            video: (B, T, 88, 88), normalised, or None.
            audio: (B, T, 104), layer-normalised, or None; not both None.
            padding_mask: (B, T), true where padded.
            has_video: (B,), false for the clips of a mixed batch that have no video.
            has_audio: (B,), likewise for audio.

        Returns:
            (B, T, D); padded frames are undefined.
        """
        seen = None if video is None else self.feature_extractor_video(video, padding_mask)
        heard = None if audio is None else self.feature_extractor_audio(audio)
        seen, heard = _zero_missing(seen, has_video), _zero_missing(heard, has_audio)
        present = seen if seen is not None else heard
        if present is None:
            raise ValueError("video and audio are both None")
        missing = torch.zeros_like(present)
        fused = torch.cat((missing if heard is None else heard, missing if seen is None else seen), dim=-1)
        x = self.feature_dropout(self.post_extract_proj(self.layer_norm(fused)))
        result: Tensor = self.encoder(x, padding_mask)
        return result


def _zero_missing(features: Tensor | None, has: Tensor | None) -> Tensor | None:
    if features is None or has is None:
        return features
    return features.masked_fill(~has[:, None, None], 0.0)
