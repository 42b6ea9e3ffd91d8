"""Validates the arrays that callers pass to a model and moves them to its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gorggle_server.errors import InvalidRequestError
from gorggle_server.input_format import MODEL_INPUT_SIZE_PX

Array: TypeAlias = Tensor | NDArray[np.generic]


def to_features(
    name: str, value: Array, shape: Sequence[int | str], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return a finite floating-point tensor of the given shape; letters in it match any size above 0.

    Raises:
        InvalidRequestError: wrong shape or dtype, or values that are not finite.
    """
    tensor = _to_tensor(name, value, shape)
    if not tensor.is_floating_point():
        raise InvalidRequestError(
            f"{name} has type {tensor.dtype}; expected floating-point numbers, already normalised"
        )
    if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
        raise InvalidRequestError(f"{name} has values that are not finite; expected finite numbers")
    return tensor.to(device=device, dtype=dtype)


def to_video(value: Array, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return normalised mouth crops (B, T, 88, 88)."""
    return to_features("video", value, ("B", "T", MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX), device, dtype)


def to_padding_mask(value: Array | None, batch: int, frames: int, device: torch.device) -> Tensor | None:
    """Return a bool mask (B, T), true where padded; None stays None.

    Raises:
        InvalidRequestError: wrong shape or dtype, or a clip without a valid frame.
    """
    if value is None:
        return None
    tensor = _to_tensor("padding_mask", value, (batch, frames))
    if tensor.dtype != torch.bool:
        raise InvalidRequestError(f"padding_mask has type {tensor.dtype}; expected bool, true where padded")
    if tensor.all(dim=1).any():
        raise InvalidRequestError(
            "padding_mask marks all frames of a clip as padding; expected at least one valid frame"
        )
    return tensor.to(device)


def to_presence(name: str, value: Array | None, batch: int, device: torch.device) -> Tensor | None:
    """Return a bool mask (B,), false for the clips that lack a modality; None stays None."""
    if value is None:
        return None
    tensor = _to_tensor(name, value, (batch,))
    if tensor.dtype != torch.bool:
        raise InvalidRequestError(f"{name} has type {tensor.dtype}; expected bool")
    return tensor.to(device)


def to_token_ids(name: str, value: Array, batch: int, vocabulary_size: int, device: torch.device) -> Tensor:
    """Return token ids (B, L)."""
    tensor = _to_tensor(name, value, (batch, "L"))
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InvalidRequestError(f"{name} has type {tensor.dtype}; expected integers")
    if tensor.min() < 0 or tensor.max() >= vocabulary_size:
        raise InvalidRequestError(
            f"{name} has ids from {int(tensor.min())} to {int(tensor.max())}; expected 0 to {vocabulary_size - 1}"
        )
    return tensor.to(device=device, dtype=torch.long)


def to_token_limits(value: int | Sequence[int], batch: int, maximum: int) -> list[int]:
    """Return the maximum tokens of each clip, capped at ``maximum``, the decoder's number of positions.

    Raises:
        InvalidRequestError: a limit is below 1, or there is not one per clip.
    """
    limits = [value] * batch if isinstance(value, int) else list(value)
    if len(limits) != batch:
        raise InvalidRequestError(
            f"max_len has {len(limits)} limits; expected one number or {batch}, one per clip"
        )
    if min(limits) < 1:
        raise InvalidRequestError(f"max_len is {min(limits)}; expected at least 1 token")
    return [min(int(limit), maximum) for limit in limits]


def _to_tensor(name: str, value: Array, shape: Sequence[int | str]) -> Tensor:
    tensor = value if isinstance(value, Tensor) else _from_numpy(name, value)
    expected = len(shape) == tensor.dim() and all(
        size > 0 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not expected:
        expected_text = ", ".join(map(str, shape))
        raise InvalidRequestError(
            f"{name} has shape {tuple(tensor.shape)}; expected ({expected_text}), all above 0"
        )
    return tensor


def _from_numpy(name: str, value: NDArray[np.generic]) -> Tensor:
    try:
        # torch warns about read-only arrays, such as views of received bytes.
        array = np.require(value, requirements=["C", "W"])
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{name} cannot be converted to an array of numbers: {error}") from error
