"""Front-ends: mouth crops and audio features to one vector per frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gorggle_server.avhubert.config import ModelConfig


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.relu1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(channels)
        self.relu2 = nn.PReLU(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H/stride, W/stride)."""
        residual: Tensor = self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        result: Tensor = self.relu2(x + residual)
        return result


class ResNet18Trunk(nn.Module):
    """A ResNet-18 without its stem, applied to single frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer1 = self._stage(channels, channels, stride=1)
        self.layer2 = self._stage(channels, 2 * channels, stride=2)
        self.layer3 = self._stage(2 * channels, 4 * channels, stride=2)
        self.layer4 = self._stage(4 * channels, 8 * channels, stride=2)

    @staticmethod
    def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 8C), averaged over the last feature map."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


class ResNet(nn.Module):
    """A 3-D stem over five frames, then the trunk on every frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, channels, (5, 7, 7), (1, 2, 2), padding=(2, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            nn.PReLU(channels),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
        )
        self.trunk: nn.Module = ResNet18Trunk(channels)
        # Set by ``optimization``: ``stem`` replaces ``frontend3D``, ``chunked`` replaces both parts.
        self.stem: nn.Module | None = None
        self.chunked: nn.Module | None = None

    def forward(self, video: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, T, H, W) to (B, T, 8C); padded frames are zero and skipped by the trunk."""
        batch, frames = video.shape[:2]
        if padding_mask is None:
            return self._extract_features(video).view(batch, frames, -1)
        real = ~padding_mask
        features = self._extract_unpadded_features(video, real)
        spread = features.new_zeros(batch, frames, features.shape[-1])
        spread[real] = features
        return spread

    def _extract_features(self, video: Tensor) -> Tensor:
        """(B, T, H, W) to (B·T, 8C)."""
        features: Tensor = self.trunk(self._run_stem(video)) if self.chunked is None else self.chunked(video)
        return features

    def _extract_unpadded_features(self, video: Tensor, real: Tensor) -> Tensor:
        """(B, T, H, W) to (N, 8C) of the N frames that are not padding."""
        lengths = real.sum(1).tolist()
        if all(bool(row[:length].all()) for row, length in zip(real, lengths, strict=True)):
            # Clip by clip, without the padding at the end.
            clips = [clip[None, :length] for clip, length in zip(video, lengths, strict=True)]
            if self.chunked is not None:
                return torch.cat([self.chunked(clip) for clip in clips])
            if self.stem is not None:
                features: Tensor = self.trunk(torch.cat([self.stem(clip) for clip in clips]))
                return features
        # The stem's kernel covers two frames ahead: values in the padding must not reach valid frames.
        silenced = video.masked_fill(~real[:, :, None, None], 0.0)
        if self.chunked is not None:
            return self._extract_features(silenced)[real.flatten()]
        result: Tensor = self.trunk(self._run_stem(silenced)[real.flatten()])
        return result

    def _run_stem(self, video: Tensor) -> Tensor:
        """(B, T, H, W) to (B·T, C, H/4, W/4)."""
        if self.stem is not None:
            features: Tensor = self.stem(video)
            return features
        x: Tensor = self.frontend3D(video.unsqueeze(1))
        return x.transpose(1, 2).flatten(0, 1)


class VideoFrontend(nn.Module):
    """Mouth crops to vectors of the encoder's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.resnet = ResNet(config.frontend_channels)
        self.proj = nn.Linear(config.frontend_dim, config.encoder_dim)

    def forward(self, video: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, T, 88, 88), normalised, to (B, T, D)."""
        projected: Tensor = self.proj(self.resnet(video, padding_mask))
        return projected


class AudioFrontend(nn.Module):
    """Stacked log-mel features to vectors of the encoder's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.audio_dim, config.encoder_dim)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, T, 104), layer-normalised, to (B, T, D)."""
        projected: Tensor = self.proj(audio)
        return projected
