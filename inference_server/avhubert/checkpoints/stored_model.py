"""A model file of any format, before its weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.errors import ModelFormatError

# BatchNorm's batch counters, which do not affect inference.
COUNTERS = "num_batches_tracked"
_NAMES_IN_MESSAGES = 5


class LazyTensor(Protocol):
    """A tensor that is read from the file on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's dtype."""

    def read(self) -> Tensor:
        """Read the tensor; raise ModelFormatError if it is damaged."""


@dataclass(frozen=True)
class StoredModel:
    """Configuration, vocabulary, card and lazy weights of a model file; ``layout`` names the file format."""

    config: ModelConfig
    tokens: list[str]
    sentencepiece_model: bytes | None
    card: dict[str, Any]
    weights: Mapping[str, LazyTensor]
    layout: str

    def build_network(self, device: torch.device, dtype: torch.dtype) -> AVHubertNetwork:
        """Build the network and load its weights.

        Raises:
            ModelFormatError: the file is damaged, or its weights do not match its configuration.
        """
        validate_weights(self.config, self.tokens, self.weights)
        network = build_meta_network(self.config)
        weights = {name: unread.read().to(device, dtype) for name, unread in self.weights.items()}
        network.load_state_dict(weights, strict=False, assign=True)
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  torch has no public name for it
                module.num_batches_tracked = torch.zeros((), dtype=torch.long, device=device)
        return network


def find_problems(
    config: ModelConfig, tokens: list[str], weights: Mapping[str, LazyTensor | Tensor]
) -> list[str]:
    """List missing and unexpected weights and those of the wrong shape or dtype; empty for a complete model."""
    expected = get_weight_shapes(config)
    missing = sorted(set(expected) - set(weights))
    unexpected = sorted(set(weights) - set(expected))
    problems = [
        f"{text} {_format_names(names)}"
        for text, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    for name in sorted(set(expected) & set(weights)):
        found = weights[name]
        if tuple(found.shape) != expected[name]:
            problems.append(f"{name} has shape {tuple(found.shape)}; expected {expected[name]}")
        elif not found.dtype.is_floating_point:
            problems.append(f"{name} has type {found.dtype}; expected a floating-point type")
    if len(tokens) != config.vocabulary_size:
        problems.append(f"the dictionary has {len(tokens)} tokens; expected {config.vocabulary_size}")
    return problems


def validate_weights(
    config: ModelConfig, tokens: list[str], weights: Mapping[str, LazyTensor | Tensor]
) -> None:
    """Raise ModelFormatError with the missing, unexpected and mismatched weights, if there are any."""
    problems = find_problems(config, tokens, weights)
    if problems:
        more = len(problems) - _NAMES_IN_MESSAGES
        shown = "; ".join(problems[:_NAMES_IN_MESSAGES]) + (f"; and {more} more" if more > 0 else "")
        raise ModelFormatError(f"the checkpoint's weights do not match its configuration: {shown}")


def build_meta_network(config: ModelConfig) -> AVHubertNetwork:
    """Build the network on the meta device, without memory for its weights."""
    with torch.device("meta"), _SkipInitialization():
        return AVHubertNetwork(config)


class _SkipInitialization(TorchFunctionMode):
    """Skips weight initialization: on the meta device it makes torch import its compiler, which takes 2 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor", args[0] if args else None)
        return func(*args, **kwargs)


def get_weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all weights of a model with this configuration."""
    state = build_meta_network(config).state_dict()
    return {name: tuple(weight.shape) for name, weight in state.items() if not name.endswith(COUNTERS)}


def _format_names(names: list[str]) -> str:
    more = len(names) - _NAMES_IN_MESSAGES
    return ", ".join(names[:_NAMES_IN_MESSAGES]) + (f" and {more} more" if more > 0 else "")
