"""Recorded results of the reference implementation, and the weights that produced them."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, Vocabulary

FOLDER = Path(__file__).parents[1] / "golden" / "avhubert"
CHECKPOINT_WITHOUT_RESNET = FOLDER / "checkpoint_without_resnet.pt"

# Operation counts from which the tolerances are derived. The longest sums are those of the last ResNet convolutions:
# 512 channels of 3 x 3. The sequence has 20 convolutions and matrix products before the encoder layers, 6 in each encoder
# layer, 10 in each decoder layer, and the output projection.
_LONGEST_SUM = 512 * 3 * 3
PRODUCTS_IN_ENCODER = 20 + 2 * 6
_PRODUCTS_IN_SEQUENCE = PRODUCTS_IN_ENCODER + 2 * 10 + 1

INPUTS = ("v1", "a1", "av1", "v7", "a7", "av7", "v25", "a25", "av25", "v60", "a60", "av60", "batch2")

CONFIG = ModelConfig(
    encoder_layers=2,
    encoder_dim=64,
    encoder_ffn_dim=128,
    encoder_heads=4,
    decoder_layers=2,
    decoder_dim=64,
    decoder_ffn_dim=128,
    decoder_heads=4,
    vocabulary_size=37,
)


@dataclass(frozen=True)
class Clip:
    """Arguments of ``Model.encode`` for one golden input."""

    video: torch.Tensor | None
    audio: torch.Tensor | None
    padding_mask: torch.Tensor | None


@cache
def _arrays() -> Any:
    return np.load(FOLDER / "arrays.npz")


@cache
def array(name: str, key: str) -> torch.Tensor | None:
    """Return a recorded array, or None if it was not recorded for this input."""
    full_name = f"{name}/{key}"
    if full_name not in _arrays():
        return None
    recorded = torch.from_numpy(_arrays()[full_name])
    return recorded.float() if recorded.dtype == torch.float16 else recorded


def tolerance(expected: torch.Tensor) -> float:
    """Return the largest difference between two correct results that float32 rounding can cause.

    Kernels for other instruction sets sum in a different order. The rounding errors of the additions are independent and
    accumulate as a random walk: the machine epsilon, relative to the largest output, times the square root of the number
    of sequential additions. That is 494 epsilon, or 5.9e-5 of the largest output. Measured with SSE 4.1, AVX2 and
    AVX-512: at most 316 epsilon.
    """
    additions = _LONGEST_SUM * _PRODUCTS_IN_SEQUENCE
    return torch.finfo(torch.float32).eps * math.sqrt(additions) * float(expected.abs().max())


def assert_close(actual: torch.Tensor, expected: torch.Tensor | None) -> None:
    """Assert that two float32 results differ by rounding only."""
    assert expected is not None
    torch.testing.assert_close(actual, expected, atol=tolerance(expected), rtol=0)


def clip(name: str) -> Clip:
    """Return a recorded input; av25 and av60 are combined from two others."""
    if name in ("av25", "av60"):
        return Clip(array(name[1:], "video"), array(f"a{name[2:]}", "audio"), None)
    return Clip(array(name, "video"), array(name, "audio"), array(name, "padding_mask"))


@cache
def cases() -> list[dict[str, Any]]:
    """Return the recorded beam searches."""
    return json.loads((FOLDER / "cases.json").read_text())["cases"]


@cache
def reference_state() -> dict[str, torch.Tensor]:
    """Return the complete state dict with the parameter names of fairseq, generated as weights.json specifies."""
    specification = json.loads((FOLDER / "weights.json").read_text())
    entries = specification.get("tensors") or {k: v for k, v in specification.items() if isinstance(v, dict)}
    explicit = np.load(FOLDER / "weights_explicit.npz")
    return {
        name: torch.from_numpy(np.ascontiguousarray(_values(specification["seed"], name, entry, explicit)))
        for name, entry in entries.items()
    }


def _values(seed: int, name: str, entry: dict[str, Any], explicit: Any) -> np.ndarray:
    if entry.get("explicit"):
        return explicit[name]
    if entry["dtype"] == "int64":
        return np.zeros(entry["shape"], np.int64)
    random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    values = random.standard_normal(entry["shape"]) * entry["std"] + entry["mean"]
    values = (np.abs(values) if entry.get("abs") else values).astype(np.float32)
    if "zero_row" in entry:
        values[entry["zero_row"]] = 0
    return values


def state() -> dict[str, torch.Tensor]:
    """Return the same weights with the parameter names of ``AVHubertNetwork``."""
    return {
        name.replace("encoder.w2v_model.", "encoder."): tensor
        for name, tensor in reference_state().items()
        if "mask_emb" not in name and "_float_tensor" not in name
    }


def network() -> AVHubertNetwork:
    """Return an ``AVHubertNetwork`` with the golden weights."""
    network = AVHubertNetwork(CONFIG).eval()
    network.load_state_dict(state())
    return network


def vocabulary() -> Vocabulary:
    """Return the tokens of the golden dictionary."""
    lines = (FOLDER / "dict.wrd.txt").read_text().splitlines()
    tokens = [*RESERVED_TOKENS, *(line.rpartition(" ")[0] for line in lines)]
    return Vocabulary(tokens, (FOLDER / "unigram.model").read_bytes())
