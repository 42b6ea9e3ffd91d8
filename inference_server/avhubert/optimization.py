"""A network made ready for reading alone: the same numbers, up to rounding, in less time. It cannot be trained after.

What is done, each with its reason:

- Batch normalisation is folded into the convolution before it: at inference both are linear.
- The three-dimensional stem becomes a convolution over pictures of five channels, the five frames that it sees at a
  time, since two-dimensional kernels are twice as fast; pooling, which only works within a frame, likewise.
- Convolutions run channels-last, the layout that their kernels work in.
- The weight normalisation of the positional convolution is worked out once instead of at every call.
- The sinusoids of the positions stand in a table.
- Queries, keys and values come from one product instead of three.
- On a CPU, linear layers keep their weights packed for oneDNN, whose products of few rows take 2.3 to 2.6 times less
  than those of the library that torch uses by itself on an AMD processor (on an Intel one it was not measured).
- On a CPU the encoder works on the frames of a batch's clips behind each other, and not on their padding; a GPU would
  rather work on padding than on one clip's attention after another's.
- On a GPU the decoder's steps have fixed shapes, and are replayed as CUDA graphs (see ``graphs``).
- On request linear layers keep their weights as 8-bit integers, a scale for each output; then the numbers differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from gorggle_server.avhubert.attention import Attention
from gorggle_server.avhubert.encoder import ConvolutionalPositions
from gorggle_server.avhubert.frontend import BasicBlock, ResNet
from gorggle_server.avhubert.network import AVHubertNetwork

# Rows that packed weights are laid out for: more than one hypothesis, fewer than an utterance has frames. Other numbers
# of rows give the same results; between 16 and 256 their speed differs by a tenth.
_PACKED_ROWS = 64
# Stem and trunk work on so many frames at a time.
_CHUNK_FRAMES = 32
_INT8_MAX = 127


def optimize_for_inference(network: AVHubertNetwork, *, int8: bool = False) -> None:
    """Make a network in evaluation mode ready for reading, in place.

    Args:
        network: on the device and in the type that it will read in.
        int8: keep the weights of linear layers as 8-bit integers; on a CPU.
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
    """A linear layer on the CPU whose weights lie as oneDNN wants them."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # What inductor compiles linear layers to; its result is opaque, so it is no buffer.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_ROWS)  # noqa: SLF001
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - as above
            x, self.weight, self.bias, "none", [], ""
        )
        return y


class Int8Linear(nn.Module):
    """A linear layer on the CPU with weights of 8 bits; inputs are rounded likewise, with a scale for each row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight: Tensor
        self.scales: Tensor
        self.bias: Tensor | None
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        self.register_buffer("weight", (weight / scales.unsqueeze(1)).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scales = rows.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        # Numbers that are not finite make a scale that is not, and so come out at the other end.
        whole = torch._int_mm((rows / scales).round().to(torch.int8), self.weight.t())  # noqa: SLF001
        y = whole * scales * self.scales
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)


class Stem(nn.Module):
    """The 3-D stem as a 2-D convolution over five frames at a time, batch normalisation folded in."""

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
        """(B, T, H, W) to (B·T, 5, H, W): each frame with the two before and after it. A view of little more than that."""
        margin = self.frames // 2
        seen = functional.pad(video, (0, 0, 0, 0, margin, margin)).unfold(1, self.frames, 1)
        # The frames are channels, and stand last already: no copy is needed for channels-last.
        return seen.flatten(0, 1).permute(0, 3, 1, 2)

    def convolve(self, frames: Tensor) -> Tensor:
        """(N, 5, H, W) to (N, C, H/4, W/4)."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        x = functional.conv2d(frames, self.weight, self.bias, stride=2, padding=self.weight.shape[-1] // 2)
        return functional.max_pool2d(self.relu(x), 3, 2, 1)


class ChunkedFrontend(nn.Module):
    """Stem and trunk one after the other on a few frames, then on the next: what layers hand on stays in the caches."""

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
        # The whole batch at once keeps more of a GPU busy.
        resnet.stem = stem


def _fuse_norm(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d)
    weight, bias = _fold_norm(convolution.weight, norm)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution


def _fold_norm(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution and the batch normalisation after it; worked out in double precision."""
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * gain
    scaled = weight.double() * gain.view(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype), shift.to(weight.dtype)


def _fuse_projections(network: AVHubertNetwork) -> None:
    """Where queries, keys and values are made of the same: one product for the three."""
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
    # The output projection shares its weights with the embedding, which is looked up and not multiplied with.
    network.decoder.output_proj = kind(network.decoder.output_weight, None)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this type here, and gives what torch gives."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    weight, x = torch.eye(48, dtype=dtype), torch.arange(2 * 48, dtype=dtype).view(2, 48) / 64
    try:
        return torch.equal(PackedLinear(weight, None)(x), x)
    except (AttributeError, RuntimeError):
        # Another version of torch, or a processor without this type: the plain layers work everywhere.
        return False
