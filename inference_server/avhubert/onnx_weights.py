"""Weights of a model file in the form that the ONNX graphs expect (see ``gorggle_training.onnx_graphs``).

Batch normalisation is folded into the convolution before it, the 3-D stem becomes a 2-D convolution over five frames, query, key
and value projections are joined, and the scale of attention is contained in the queries. Weights of linear layers are (inputs,
outputs).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gorggle_server.avhubert.config import PAD, ModelConfig

NORM_EPSILON = 1e-5
# Beside the graphs: their architecture, and the names of the weights that each graph needs.
INDEX_FILE = "graphs.json"

FloatArray = NDArray[np.float32]


def prepare_weights(stored: Mapping[str, FloatArray], config: ModelConfig) -> dict[str, FloatArray]:
    """Return the weights of all graphs by name.

    Args:
        stored: float32, by their names in ``AVHubertNetwork``.
        config: of the model.
    """
    prepared = {
        **_prepare_video_frontend(stored),
        **_prepare_encoder(stored, config),
        **_prepare_decoder(stored, config),
    }
    return {name: np.ascontiguousarray(weight, np.float32) for name, weight in prepared.items()}


def describe_architecture(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a configuration that the graphs depend on, as JSON values."""
    fields = {name: value for name, value in config.to_dict().items() if not name.endswith("dropout")}
    described: dict[str, Any] = json.loads(json.dumps(fields))
    return described


def count_positions(config: ModelConfig) -> int:
    """Return the number of rows of the table of position embeddings."""
    return PAD + 1 + config.max_target_size


def compute_position_table(count: int, dim: int) -> FloatArray:
    """Return sinusoidal position embeddings (count, dim), sines before cosines; zero at the padding position.

    Source: "Attention Is All You Need", in tensor2tensor's arrangement, which fairseq uses.
    """
    half = dim // 2
    step = np.float32(math.log(10_000) / max(half - 1, 1))
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.arange(count, dtype=np.float32)[:, None] * frequencies
    table = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    table[PAD] = 0.0
    return table


def _prepare_video_frontend(stored: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    own = "encoder.feature_extractor_video."
    resnet = f"{own}resnet."
    weights: dict[str, FloatArray] = {}

    def fold(name: str, convolution: str, norm: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = _fold_norm(
            stored, resnet + convolution, resnet + norm
        )

    fold("stem", "frontend3D.0", "frontend3D.1")
    weights["stem.weight"] = weights["stem.weight"][:, 0]
    weights.update(_split_prelu("stem.prelu", stored[f"{resnet}frontend3D.2.weight"]))
    for stage in range(1, 5):
        for block in range(2):
            name, trunk = f"layer{stage}.{block}", f"trunk.layer{stage}.{block}"
            for number in (1, 2):
                fold(f"{name}.conv{number}", f"{trunk}.conv{number}", f"{trunk}.bn{number}")
                slope = stored[f"{resnet}{trunk}.relu{number}.weight"]
                weights.update(_split_prelu(f"{name}.prelu{number}", slope))
            if f"{resnet}{trunk}.downsample.0.weight" in stored:
                fold(f"{name}.downsample", f"{trunk}.downsample.0", f"{trunk}.downsample.1")
    weights.update(_copy_linear(stored, "video_proj", f"{own}proj"))
    return weights


def _prepare_encoder(stored: Mapping[str, FloatArray], config: ModelConfig) -> dict[str, FloatArray]:
    positions = "encoder.encoder.pos_conv.0."
    direction = stored[f"{positions}weight_v"]
    lengths = np.linalg.norm(direction.astype(np.float64), axis=(0, 1), keepdims=True)
    weights: dict[str, FloatArray] = {
        "positions.weight": (direction * (stored[f"{positions}weight_g"] / lengths)).astype(np.float32),
        "positions.bias": stored[f"{positions}bias"],
        **_copy_linear(stored, "audio_proj", "encoder.feature_extractor_audio.proj"),
        **_copy_norm(stored, "fusion_norm", "encoder.layer_norm"),
        **_copy_linear(stored, "fusion_proj", "encoder.post_extract_proj"),
        **_copy_norm(stored, "encoder.norm", "encoder.encoder.layer_norm"),
    }
    scale = (config.encoder_dim // config.encoder_heads) ** -0.5
    for number in range(config.encoder_layers):
        name, layer = f"encoder.{number}", f"encoder.encoder.layers.{number}"
        weights.update(_prepare_self_attention(stored, name, layer, scale))
        weights.update(_prepare_feed_forward(stored, name, layer))
    return weights


def _prepare_decoder(stored: Mapping[str, FloatArray], config: ModelConfig) -> dict[str, FloatArray]:
    embedding = stored["decoder.embed_tokens.weight"]
    embedding_scale = math.sqrt(config.decoder_dim) if config.scale_embeddings else 1.0
    weights: dict[str, FloatArray] = {
        "decoder.embedding": embedding * np.float32(embedding_scale),
        "decoder.positions": compute_position_table(count_positions(config), config.decoder_dim),
        "decoder.output.weight": stored.get("decoder.embed_out", embedding).T,
        **_copy_norm(stored, "decoder.norm", "decoder.layer_norm"),
    }
    scale = (config.decoder_dim // config.decoder_heads) ** -0.5
    for number in range(config.decoder_layers):
        name, layer = f"decoder.{number}", f"decoder.layers.{number}"
        weights.update(_prepare_self_attention(stored, name, layer, scale))
        weights.update(_copy_norm(stored, f"{name}.cross_norm", f"{layer}.encoder_attn_layer_norm"))
        for part, projection, factor in (
            ("queries", "q_proj", scale),
            ("keys", "k_proj", 1.0),
            ("values", "v_proj", 1.0),
            ("out", "out_proj", 1.0),
        ):
            copied = _copy_linear(stored, f"{name}.cross.{part}", f"{layer}.encoder_attn.{projection}")
            weights.update({key: weight * np.float32(factor) for key, weight in copied.items()})
        weights.update(_prepare_feed_forward(stored, name, layer))
    return weights


def _prepare_self_attention(
    stored: Mapping[str, FloatArray], name: str, layer: str, scale: float
) -> dict[str, FloatArray]:
    weights = _copy_norm(stored, f"{name}.attention_norm", f"{layer}.self_attn_layer_norm")
    weights.update(_copy_linear(stored, f"{name}.attention.out", f"{layer}.self_attn.out_proj"))
    factors = (("q_proj", np.float32(scale)), ("k_proj", np.float32(1)), ("v_proj", np.float32(1)))
    for kind in ("weight", "bias"):
        parts = [stored[f"{layer}.self_attn.{part}.{kind}"] * factor for part, factor in factors]
        weights[f"{name}.attention.qkv.{kind}"] = np.concatenate(parts).T
    return weights


def _prepare_feed_forward(stored: Mapping[str, FloatArray], name: str, layer: str) -> dict[str, FloatArray]:
    return {
        **_copy_norm(stored, f"{name}.final_norm", f"{layer}.final_layer_norm"),
        **_copy_linear(stored, f"{name}.fc1", f"{layer}.fc1"),
        **_copy_linear(stored, f"{name}.fc2", f"{layer}.fc2"),
    }


def _split_prelu(name: str, slope: FloatArray) -> dict[str, FloatArray]:
    """Return the factors of x and of max(x, 0)."""
    factors = {f"{name}.slope": slope, f"{name}.rest": 1 - slope}
    return {key: factor[:, None, None, None] for key, factor in factors.items()}


def _copy_linear(stored: Mapping[str, FloatArray], name: str, source: str) -> dict[str, FloatArray]:
    return {
        f"{name}.weight": stored[f"{source}.weight"].T,
        f"{name}.bias": stored[f"{source}.bias"],
    }


def _copy_norm(stored: Mapping[str, FloatArray], name: str, source: str) -> dict[str, FloatArray]:
    return {f"{name}.{kind}": stored[f"{source}.{kind}"] for kind in ("weight", "bias")}


def _fold_norm(
    stored: Mapping[str, FloatArray], convolution: str, norm: str
) -> tuple[FloatArray, FloatArray]:
    """Return weight and bias of a convolution with its batch normalisation, computed in double precision."""
    weight = stored[f"{convolution}.weight"].astype(np.float64)
    deviation = np.sqrt(stored[f"{norm}.running_var"].astype(np.float64) + NORM_EPSILON)
    gain = stored[f"{norm}.weight"] / deviation
    shift = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * gain
    scaled = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled.astype(np.float32), shift.astype(np.float32)
