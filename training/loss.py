"""The training loss: transcription, and auxiliary losses on mouth motion, attention and frame tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gorggle_server.avhubert.config import PAD
from gorggle_server.avhubert.frontend import BasicBlock, ResNet
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_training.dataset import Batch

# PyTorch's initial PReLU slope, kept fixed: its gradient would cost as much as all convolutions.
PRELU_SLOPE = 0.25
FRAMES_MULTIPLE = 64
INPUT_VARIANTS = 4  # per utterance: video only, audio only clean and noisy, audio-visual noisy
# Share of audio-visual inputs with clean audio that get the lips of another utterance: speakers of few recordings are easily
# lip-read, and the model would trust the lips of others as much, even against clean audio.
OTHER_LIPS_SHARE = 0.2
LABEL_SMOOTHING = 0.1  # probability mass spread over all tokens
# Weights of the auxiliary losses: the token being said in each encoder frame (known from rendering); attention, for each
# token, to the frames in which it is said; and the mouth's parameters, regressed from the front-end's features.
FRAME_TOKENS_WEIGHT, ATTENTION_WEIGHT, MOTION_WEIGHT = 0.5, 0.2, 0.5


class TrainingLoss(nn.Module):
    """The network with two auxiliary heads for training."""

    def __init__(self, network: AVHubertNetwork, motion_parameters: int) -> None:
        super().__init__()
        self.network = network
        config = network.config
        # Normalizes parameters of different magnitude.
        self.motion_norm = nn.BatchNorm1d(motion_parameters, affine=False)
        self.motion_head = nn.Linear(config.frontend_dim, motion_parameters)
        self.token_head = nn.Linear(config.encoder_dim, config.vocabulary_size)
        for name, parameter in network.named_parameters():
            if is_slope(name):
                nn.init.constant_(parameter, PRELU_SLOPE)
                parameter.requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and its parts for logging.

        Every utterance is encoded four times: video only, clean audio, noisy audio, and video with noisy audio. The
        front-end, most of the cost, runs once for all.
        """
        features = compute_frame_features(
            self.network.encoder.feature_extractor_video.resnet, batch.video, batch.padding_mask
        )
        encoder_out = self._encode(features, batch)
        padding_mask, tokens, previous_tokens, frame_targets = (
            values.repeat(INPUT_VARIANTS, 1)
            for values in (batch.padding_mask, batch.tokens, batch.previous_tokens, batch.frame_tokens)
        )
        logits, attention = self.network.decode_with_attention(encoder_out, padding_mask, previous_tokens)
        sentence = functional.cross_entropy(
            logits.float().transpose(1, 2), tokens, ignore_index=PAD, label_smoothing=LABEL_SMOOTHING
        )
        frame_tokens = functional.cross_entropy(
            self.token_head(encoder_out).float().transpose(1, 2),
            frame_targets,
            ignore_index=PAD,
            reduction="sum",
        ) / frame_targets.ne(PAD).sum().clamp_min(1)
        motion = self._motion_loss(features, batch)
        attention_loss = _attention_loss(attention, batch.attention.repeat(INPUT_VARIANTS, 1, 1))
        loss = (
            sentence
            + FRAME_TOKENS_WEIGHT * frame_tokens
            + MOTION_WEIGHT * motion
            + ATTENTION_WEIGHT * attention_loss
        )
        parts = {
            "sentence": sentence,
            "frame tokens": frame_tokens,
            "motion": motion,
            "attention": attention_loss,
        }
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def _motion_loss(self, features: Tensor, batch: Batch) -> Tensor:
        """Return the squared error of the normalized mouth parameters, over the frames where they are known."""
        known = ~batch.padding_mask & ~batch.motion.isnan().any(dim=2)
        if not known.any():
            return features.new_zeros(())
        target = self.motion_norm(batch.motion[known]).detach()
        return functional.mse_loss(self.motion_head(features[known]).float(), target)

    def _encode(self, features: Tensor, batch: Batch) -> Tensor:
        """Return (4B, T, D): video only, clean audio, noisy audio, audio-visual. See ``AudioVisualEncoder``."""
        encoder = self.network.encoder
        count = len(features)
        video = encoder.feature_extractor_video.proj(features)
        clean, noisy = encoder.feature_extractor_audio(torch.cat((batch.clean_audio, batch.audio))).split(
            count
        )
        nothing = torch.zeros_like(video)
        video = torch.cat((video, nothing, nothing, swap_lips(video, batch) if self.training else video))
        audio = torch.cat((nothing, clean, noisy, noisy))
        fused = encoder.post_extract_proj(encoder.layer_norm(torch.cat((audio, video), dim=-1)))
        encoded: Tensor = encoder.encoder(
            encoder.feature_dropout(fused), batch.padding_mask.repeat(INPUT_VARIANTS, 1)
        )
        return encoded


def is_slope(name: str) -> bool:
    """Return whether a network's parameter of this name is the slope of a PReLU."""
    return "relu" in name or name.endswith("frontend3D.2.weight")


def swap_lips(video: Tensor, batch: Batch) -> Tensor:
    """Replace (B, T, D) video features of some utterances with clean audio by those of the next utterance."""
    is_clean = batch.audio.eq(batch.clean_audio).all(dim=2).all(dim=1)
    is_swapped = is_clean & (torch.rand(len(video), device=video.device) < OTHER_LIPS_SHARE)
    return torch.where(is_swapped[:, None, None], video.roll(1, dims=0), video)


def compute_frame_features(resnet: ResNet, video: Tensor, padding_mask: Tensor) -> Tensor:
    """Compute ``resnet(video, padding_mask)`` with every PReLU slope fixed at ``PRELU_SLOPE``, faster on a CPU.

    The stem's 3-D convolution of one channel becomes a 2-D convolution of five adjacent frames, and PReLU a leaky ReLU.
    (With 16 channels in bfloat16 on two cores: 2,000 frames a second, against 600.)

    Returns:
        (B, T, 8C), zero where padded.
    """
    stem, norm = resnet.frontend3D[0], resnet.frontend3D[1]
    assert isinstance(stem, nn.Conv3d), "the stem begins with a convolution"
    assert isinstance(norm, nn.BatchNorm3d), "which is normalised"
    video = video.masked_fill(padding_mask[:, :, None, None], 0.0)
    if torch.is_autocast_enabled(video.device.type):
        video = video.to(torch.get_autocast_dtype(video.device.type))  # before it is copied five times
    reach = stem.kernel_size[0] // 2
    neighbours = functional.pad(video, (0, 0, 0, 0, reach, reach)).unfold(1, stem.kernel_size[0], 1)
    real = (~padding_mask).flatten().nonzero().squeeze(1)
    x = neighbours.flatten(0, 1)[_pad_indices(real)].permute(0, 3, 1, 2)
    x = functional.conv2d(x, stem.weight[:, 0], stride=stem.stride[1], padding=stem.kernel_size[1] // 2)
    statistics = norm.running_mean, norm.running_var
    x = functional.batch_norm(
        x, *statistics, norm.weight, norm.bias, norm.training, norm.momentum or 0.0, norm.eps
    )
    x = functional.max_pool2d(functional.leaky_relu(x, PRELU_SLOPE), 3, 2, 1)
    for block in resnet.trunk.modules():
        if isinstance(block, BasicBlock):
            x = _run_block(block, x)
    features = x.float().mean(dim=(2, 3))
    spread = features.new_zeros(padding_mask.numel(), features.shape[-1])
    spread = spread.index_copy(0, real, features[: len(real)])
    return spread.view(*padding_mask.shape, -1)


def _pad_indices(indices: Tensor) -> Tensor:
    """Pad indices to a multiple of FRAMES_MULTIPLE by repetition: oneDNN compiles CPU kernels for every new size."""
    lacking = -len(indices) % FRAMES_MULTIPLE
    return torch.cat((indices, indices.repeat(1 + lacking // len(indices))[:lacking]))


def _run_block(block: BasicBlock, x: Tensor) -> Tensor:
    residual: Tensor = block.downsample(x)
    x = functional.leaky_relu(block.bn1(block.conv1(x)), PRELU_SLOPE)
    return functional.leaky_relu(block.bn2(block.conv2(x)) + residual, PRELU_SLOPE)


def _attention_loss(attention: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of (B, L, T) attention against the frames of each token, over tokens with known frames."""
    said = target.sum(dim=2) > 0
    entropies = -(target[said] * attention.float()[said].clamp_min(1e-6).log()).sum(dim=1)
    return entropies.sum() / said.sum().clamp_min(1)
