"""Inference optimizations of a network. Results are the same up to rounding; the network cannot be trained afterwards.

- Batch normalisation is folded into the preceding convolution.
- The 3-D stem becomes a 2-D convolution with the five frames of its kernel as channels, which is twice as fast.
- Convolutions run channels-last, the layout of their kernels.
- The weight normalisation of the positional convolution is computed once.
- Sinusoidal position embeddings are stored in a table.
- Query, key and value projections are fused.
- On a CPU, weights of linear layers are packed for oneDNN. With few rows it is 2.3 to 2.6 times as fast as torch's
  default on an AMD CPU (not measured on Intel).
- On a CPU, the encoder runs on a packed batch without padding. On a GPU, computing the padding is faster than running
  the attention of each clip separately.
- On a GPU, decoder steps have static shapes and are replayed as CUDA graphs (see ``cuda_graphs``).
- Optionally, weights of linear layers are quantized to 8 bits with one scale per output; then results differ.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from gorggle_server.avhubert.attention import Attention
from gorggle_server.avhubert.encoder import ConvolutionalPositions
from gorggle_server.avhubert.frontend import BasicBlock, ResNet
from gorggle_server.avhubert.network import AVHubertNetwork

# Number of rows that packed weights are laid out for. Other numbers give the same results; between 16 and 256 the speed
# differs by 10 %.
_PACKED_ROWS = 64
# Stem and trunk process this many frames at a time.
_CHUNK_FRAMES = 32
_INT8_MAX = 127
# The kernels of CPUs without VNNI add pairs of products in 16 bits and saturate; weights of 7 bits stay below that.
_INT7_MAX = 63


def optimize_for_inference(network: AVHubertNetwork, *, int8: bool = False) -> None:
    """Optimize a network in evaluation mode in place.

    Args:
        network: on its final device and in its final dtype.
        int8: quantize linear layers to 8 bits; CPU only.
    """
    with torch.no_grad():
        _optimize_frontend(network.encoder.feature_extractor_video.resnet)
        for module in list(network.modules()):
            if isinstance(module, ConvolutionalPositions):
                module.precompute_kernel()
        network.decoder.precompute_positions()
        _fuse_projections(network)
        if network.decoder.embed_tokens.weight.device.type == "cpu":
            network.encoder.encoder.skip_padding = True
            _pack_linear_layers(network, int8=int8)
        else:
            network.decoder.use_cuda_graphs = True


class PackedLinear(nn.Module):
    """A CPU linear layer with weights packed for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # The operation that inductor compiles linear layers to. The packed tensor is opaque, so it is not a buffer.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)  # noqa: SLF001
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - as above
            x, self.weight, self.bias, "none", [], ""
        )
        return y


class Int8Linear(nn.Module):
    """A CPU linear layer with 8-bit weights; inputs are quantized dynamically with one scale per row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight: Tensor
        self.scales: Tensor
        self.bias: Tensor | None
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _max_int8_weight()
        self.register_buffer("weight", (weight / scales.unsqueeze(1)).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scales = rows.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        # Values that are not finite make the scale non-finite, and so propagate to the output.
        whole = torch._int_mm((rows / scales).round().to(torch.int8), self.weight.t())  # noqa: SLF001
        y = whole * scales * self.scales
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class Stem(nn.Module):
    """The 3-D stem as a 2-D convolution over five frames, with folded batch normalisation."""

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__()
        convolution, norm, self.relu, _ = stem
        assert isinstance(convolution, nn.Conv3d)
        weight, bias = _fold_norm(convolution.weight, norm)
        self.frames = weight.shape[2]
        self.weight = nn.Parameter(
            weight.squeeze(1).contiguous(memory_format=torch.channels_last), requires_grad=False
        )
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, H, W) to (B·T, C, H/4, W/4)."""
        return torch.cat(
            [self.convolve(some) for some in torch.split(self.unfold_frames(video), _CHUNK_FRAMES)]
        )

    def unfold_frames(self, video: Tensor) -> Tensor:
        """(B, T, H, W) to (B·T, 5, H, W): each frame with its two neighbours on both sides, as a strided view."""
        margin = self.frames // 2
        seen = functional.pad(video, (0, 0, 0, 0, margin, margin)).unfold(1, self.frames, 1)
        # Frames become channels. They are the last dimension in memory, so channels-last needs no copy.
        return seen.flatten(0, 1).permute(0, 3, 1, 2)

    def convolve(self, frames: Tensor) -> Tensor:
        """(N, 5, H, W) to (N, C, H/4, W/4)."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        x = functional.conv2d(frames, self.weight, self.bias, stride=2, padding=self.weight.shape[-1] // 2)
        return functional.max_pool2d(self.relu(x), 3, 2, 1)


class ChunkedFrontend(nn.Module):
    """Runs stem and trunk on chunks of frames, so that activations stay in the CPU caches."""

    def __init__(self, stem: Stem, trunk: nn.Module) -> None:
        super().__init__()
        self.stem, self.trunk = stem, trunk

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, H, W) to (B·T, 8C)."""
        return torch.cat(
            [
                self.trunk(self.stem.convolve(some))
                for clip in video
                for some in torch.split(self.stem.unfold_frames(clip[None]), _CHUNK_FRAMES)
            ]
        )


def _optimize_frontend(resnet: ResNet) -> None:
    on_cpu = next(resnet.parameters()).device.type == "cpu"
    for block in resnet.trunk.modules():
        if isinstance(block, BasicBlock):
            block.conv1, block.bn1 = _fuse_norm(block.conv1, block.bn1), nn.Identity()
            block.conv2, block.bn2 = _fuse_norm(block.conv2, block.bn2), nn.Identity()
            if isinstance(block.downsample, nn.Sequential):
                block.downsample = _fuse_norm(*block.downsample)
    stem = Stem(resnet.frontend3D)
    resnet.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    del resnet.frontend3D
    if on_cpu:
        resnet.chunked = ChunkedFrontend(stem, resnet.trunk)
        del resnet.trunk
    else:
        # A GPU is better utilized with the whole batch at once.
        resnet.stem = stem


def _fuse_norm(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d)
    weight, bias = _fold_norm(convolution.weight, norm)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution


def _fold_norm(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a convolution fused with its batch normalisation, computed in double precision."""
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * gain
    scaled = weight.double() * gain.view(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype), shift.to(weight.dtype)


def _fuse_projections(network: AVHubertNetwork) -> None:
    """Fuse the query, key and value projections of self-attention."""
    for attention in _self_attentions(network):
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        joined = nn.Linear(parts[0].in_features, 3 * parts[0].out_features, device="meta")
        joined.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        joined.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
        attention.qkv_proj = joined
        del attention.q_proj, attention.k_proj, attention.v_proj


def _self_attentions(network: AVHubertNetwork) -> Iterator[Attention]:
    for name, module in network.named_modules():
        if isinstance(module, Attention) and name.endswith("self_attn"):
            yield module


def _pack_linear_layers(network: AVHubertNetwork, *, int8: bool) -> None:
    kind = Int8Linear if int8 else PackedLinear
    if not int8 and not _can_pack(network.decoder.embed_tokens.weight.dtype):
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, kind(child.weight, child.bias))
    # The output projection shares its weights with the embedding, so it is not an nn.Linear.
    network.decoder.output_proj = kind(network.decoder.output_weight, None)


@functools.cache
def _max_int8_weight() -> int:
    """Return the largest quantized weight whose products this CPU adds up without saturation."""
    x = torch.full((2, 64), _INT8_MAX, dtype=torch.int8)
    is_exact = bool((torch._int_mm(x, x.t()) == 64 * _INT8_MAX**2).all())  # noqa: SLF001
    return _INT8_MAX if is_exact else _INT7_MAX


def _can_pack(dtype: torch.dtype) -> bool:
    """Return whether oneDNN supports this dtype on this CPU with correct results."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    weight, x = torch.eye(48, dtype=dtype), torch.arange(2 * 48, dtype=dtype).view(2, 48) / 64
    try:
        return torch.equal(PackedLinear(weight, None)(x), x)
    except (AttributeError, RuntimeError):
        # Another version of torch, or a CPU without support for the dtype.
        return False
