"""Builds the ONNX graphs of AV-HuBERT for onnxruntime.

The graphs depend on a model's configuration alone: weights are external data, which the server fills in from the model file
(``gorggle_server.avhubert.onnx_weights``). So one set of graphs serves all models of one architecture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.onnx_weights import (
    INDEX_FILE,
    NORM_EPSILON,
    count_positions,
    describe_architecture,
)
from gorggle_server.input_format import MODEL_INPUT_SIZE_PX

# The newest operators that onnxruntime 1.22 has CPU kernels for (LayerNormalization is of 17, Gelu of 20).
OPSET = 20
IR_VERSION = 10
STEM_FRAMES = 5


class GraphBuilder:
    """Collects the nodes, inputs, outputs and weights of one graph. Methods return the names of values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], onnx.TensorProto] = {}

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        """Add an input; strings in the shape are sizes that vary."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Make a value an output of this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def weight(self, name: str, *shape: int) -> str:
        """Add a float32 weight whose data is external; the same name may be used several times."""
        tensor = onnx.TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(4 * math.prod(shape)))):
            tensor.external_data.add(key=key, value=value)
        self._weights[name] = tensor
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        """Add a constant."""
        key = (value.tobytes(), str(value.dtype), value.shape)
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(value, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.nodes(operator, *inputs, outputs=1, **attributes)[0]

    def nodes(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [f"{operator}_{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def linear(self, x: str, name: str, dim_in: int, dim_out: int, *, bias: bool = True) -> str:
        """Add a linear layer over the last dimension; its weight is (dim_in, dim_out)."""
        y = self.node("MatMul", x, self.weight(f"{name}.weight", dim_in, dim_out))
        return self.node("Add", y, self.weight(f"{name}.bias", dim_out)) if bias else y

    def layer_norm(self, x: str, name: str, dim: int) -> str:
        """Add a layer normalisation over the last dimension."""
        gain, bias = self.weight(f"{name}.weight", dim), self.weight(f"{name}.bias", dim)
        return self.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=NORM_EPSILON)

    def convolution(self, x: str, name: str, channels: tuple[int, int], size: int, stride: int = 1) -> str:
        """Add a 2-D convolution from ``channels[0]`` to ``channels[1]``, padded to keep the size at stride 1."""
        weight = self.weight(f"{name}.weight", channels[1], channels[0], size, size)
        bias = self.weight(f"{name}.bias", channels[1])
        margin = [size // 2] * 4
        return self.node(
            "Conv", x, weight, bias, kernel_shape=[size, size], strides=[stride, stride], pads=margin
        )

    def prelu(self, x: str, name: str, channels: int) -> str:
        """Add a PReLU with one slope per channel, as slope * x + (1 - slope) * max(x, 0).

        The products are convolutions of one pixel: with onnxruntime's own PReLU, which its blocked memory layout does not have, the
        front-end takes 1.6 times as long.
        """
        parts = [
            self.node(
                "Conv",
                part,
                self.weight(f"{name}.{kind}", channels, 1, 1, 1),
                kernel_shape=[1, 1],
                group=channels,
            )
            for kind, part in (("slope", x), ("rest", self.node("Relu", x)))
        ]
        return self.node("Add", *parts)

    def split_heads(self, x: str, heads: int, dim: int, order: Sequence[int]) -> str:
        """Reshape (B, T, heads * dim) to (B, T, heads, dim) and transpose it."""
        return self.node(
            "Transpose", self.node("Reshape", x, self.integers(0, 0, heads, dim)), perm=list(order)
        )

    def merge_heads(self, x: str, dim: int) -> str:
        """Reshape (B, heads, T, D / heads) to (B, T, D)."""
        return self.node("Reshape", self.node("Transpose", x, perm=[0, 2, 1, 3]), self.integers(0, 0, dim))

    def build(self) -> onnx.ModelProto:
        """Return the model."""
        initializers = [*self._weights.values(), *self._constants.values()]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def build_video_frontend(config: ModelConfig) -> onnx.ModelProto:
    """Crops to features.

    ``frames`` (N, 5, 88, 88), normalised, each with the two frames before and after it, to ``features`` (N, D).
    """
    graph, channels = GraphBuilder("video_frontend"), config.frontend_channels
    x = graph.input("frames", ("N", STEM_FRAMES, MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX))
    x = graph.prelu(
        graph.convolution(x, "stem", (STEM_FRAMES, channels), 7, stride=2), "stem.prelu", channels
    )
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = channels
    for stage in range(4):
        width = channels * 2**stage
        for block in range(2):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            residual = x
            if stride != 1 or before != width:
                residual = graph.convolution(x, f"{name}.downsample", (before, width), 1, stride)
            y = graph.convolution(x, f"{name}.conv1", (before, width), 3, stride)
            y = graph.prelu(y, f"{name}.prelu1", width)
            y = graph.convolution(y, f"{name}.conv2", (width, width), 3)
            x = graph.prelu(graph.node("Add", y, residual), f"{name}.prelu2", width)
            before = width
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)
    graph.output(
        "features",
        graph.linear(pooled, "video_proj", config.frontend_dim, config.encoder_dim),
        ("N", config.encoder_dim),
    )
    return graph.build()


def build_encoder(config: ModelConfig) -> onnx.ModelProto:
    """Features to the encoder's output, of one clip.

    ``video`` (T, D), zeros without video, ``audio`` (T, 104) and ``has_audio`` (1,), 0 or 1, to ``encoded`` (1, T, D).
    """
    graph, dim, heads = GraphBuilder("encoder"), config.encoder_dim, config.encoder_heads
    video = graph.input("video", ("T", dim))
    audio = graph.input("audio", ("T", config.audio_dim))
    has_audio = graph.input("has_audio", (1,))
    heard = graph.node("Mul", graph.linear(audio, "audio_proj", config.audio_dim, dim), has_audio)
    x = graph.node("Unsqueeze", graph.node("Concat", heard, video, axis=-1), graph.integers(0))
    x = graph.linear(graph.layer_norm(x, "fusion_norm", 2 * dim), "fusion_proj", 2 * dim, dim)
    x = graph.node("Add", x, _build_positions(graph, x, config))
    for number in range(config.encoder_layers):
        name = f"encoder.{number}"
        normed = graph.layer_norm(x, f"{name}.attention_norm", dim)
        attended = _build_self_attention(graph, normed, f"{name}.attention", dim, heads)
        x = graph.node("Add", x, attended)
        x = _build_feed_forward(graph, x, name, dim, config.encoder_ffn_dim, "Gelu")
    graph.output("encoded", graph.layer_norm(x, "encoder.norm", dim), (1, "T", dim))
    return graph.build()


def _build_positions(graph: GraphBuilder, x: str, config: ModelConfig) -> str:
    size, dim = config.position_kernel_size, config.encoder_dim
    kernel = graph.weight("positions.weight", dim, dim // config.position_groups, size)
    convolved = graph.node(
        "Conv",
        graph.node("Transpose", x, perm=[0, 2, 1]),
        kernel,
        graph.weight("positions.bias", dim),
        kernel_shape=[size],
        group=config.position_groups,
        # The published network drops the last frame of an even kernel.
        pads=[size // 2, size // 2 - (1 - size % 2)],
    )
    return graph.node("Transpose", graph.node("Gelu", convolved), perm=[0, 2, 1])


def _build_self_attention(
    graph: GraphBuilder, x: str, name: str, dim: int, heads: int, mask: str | None = None
) -> str:
    queries, keys, values = _project_qkv(graph, x, name, dim)
    size = dim // heads
    scores = graph.node(
        "MatMul",
        graph.split_heads(queries, heads, size, (0, 2, 1, 3)),
        graph.split_heads(keys, heads, size, (0, 2, 3, 1)),
    )
    if mask is not None:
        scores = graph.node("Add", scores, mask)
    shares = graph.node("Softmax", scores, axis=-1)
    attended = graph.node("MatMul", shares, graph.split_heads(values, heads, size, (0, 2, 1, 3)))
    return graph.linear(graph.merge_heads(attended, dim), f"{name}.out", dim, dim)


def _project_qkv(graph: GraphBuilder, x: str, name: str, dim: int) -> list[str]:
    """Project to queries, keys and values. The weights contain the scale of the queries."""
    return graph.nodes(
        "Split", graph.linear(x, f"{name}.qkv", dim, 3 * dim), outputs=3, axis=-1, num_outputs=3
    )


def _build_feed_forward(
    graph: GraphBuilder, x: str, name: str, dim: int, hidden_dim: int, activation: str
) -> str:
    hidden = graph.linear(graph.layer_norm(x, f"{name}.final_norm", dim), f"{name}.fc1", dim, hidden_dim)
    return graph.node("Add", x, graph.linear(graph.node(activation, hidden), f"{name}.fc2", hidden_dim, dim))


def build_source_projection(config: ModelConfig) -> onnx.ModelProto:
    """Encoder output to the decoder's keys and values, of one clip.

    ``encoded`` (1, T, D) to ``keys_l`` (1, heads, d, T) and ``values_l`` (1, heads, T, d) of each layer l.
    """
    graph = GraphBuilder("source_projection")
    encoded = graph.input("encoded", (1, "T", config.encoder_dim))
    dim, heads = config.decoder_dim, config.decoder_heads
    for number in range(config.decoder_layers):
        for kind, order, shape in (
            ("keys", (0, 2, 3, 1), (1, heads, dim // heads, "T")),
            ("values", (0, 2, 1, 3), (1, heads, "T", dim // heads)),
        ):
            projected = graph.linear(encoded, f"decoder.{number}.cross.{kind}", config.encoder_dim, dim)
            graph.output(f"{kind}_{number}", graph.split_heads(projected, heads, dim // heads, order), shape)
    return graph.build()


def build_decoder_step(config: ModelConfig) -> onnx.ModelProto:
    """One token of W hypotheses of C clips, with the keys and values of earlier tokens.

    Inputs: ``tokens`` (C, W), ``positions`` (C, 1); ``past_mask`` (C, 1, W, S) and ``source_mask`` (C, 1, 1, T), 0 where
    attended to and minus infinity elsewhere; of each layer l ``past_keys_l`` (C, heads, d, S), ``past_values_l`` (C, heads,
    S, d), ``source_keys_l`` (C, heads, d, T), ``source_values_l`` (C, heads, T, d).

    Outputs: ``logits`` (C, W, V) and of each layer l the newest tokens' ``keys_l`` and ``values_l`` (C, heads, W, d).
    """
    graph, dim, heads = GraphBuilder("decoder_step"), config.decoder_dim, config.decoder_heads
    size = dim // heads
    tokens = graph.input("tokens", ("C", "W"), TensorProto.INT64)
    positions = graph.input("positions", ("C", 1), TensorProto.INT64)
    past_mask = graph.input("past_mask", ("C", 1, "W", "S"))
    source_mask = graph.input("source_mask", ("C", 1, 1, "T"))
    x = _embed(graph, tokens, positions, config)
    for number in range(config.decoder_layers):
        name = f"decoder.{number}"
        past_keys = graph.input(f"past_keys_{number}", ("C", heads, size, "S"))
        past_values = graph.input(f"past_values_{number}", ("C", heads, "S", size))
        normed = graph.layer_norm(x, f"{name}.attention_norm", dim)
        queries, keys, values = (
            graph.split_heads(part, heads, size, (0, 2, 1, 3))
            for part in _project_qkv(graph, normed, f"{name}.attention", dim)
        )
        graph.output(f"keys_{number}", keys, ("C", heads, "W", size))
        graph.output(f"values_{number}", values, ("C", heads, "W", size))
        # A token attends to itself and to its ancestors, not to the other newest tokens.
        own = graph.node("ReduceSum", graph.node("Mul", queries, keys), graph.integers(-1), keepdims=1)
        scores = graph.node("Add", graph.node("MatMul", queries, past_keys), past_mask)
        shares = graph.node("Softmax", graph.node("Concat", scores, own, axis=-1), axis=-1)
        last = graph.integers(-1), graph.integers(np.iinfo(np.int64).max)
        first = graph.integers(0), graph.integers(-1)
        of_past = graph.node("Slice", shares, *first, graph.integers(-1))
        of_own = graph.node("Slice", shares, *last, graph.integers(-1))
        attended = graph.node(
            "Add",
            graph.node("MatMul", of_past, past_values),
            graph.node("Mul", of_own, values),
        )
        x = graph.node(
            "Add", x, graph.linear(graph.merge_heads(attended, dim), f"{name}.attention.out", dim, dim)
        )
        source = (
            graph.input(f"source_keys_{number}", ("C", heads, size, "T")),
            graph.input(f"source_values_{number}", ("C", heads, "T", size)),
        )
        attended, _ = _build_cross_attention(graph, x, name, source, source_mask, config)
        x = graph.node("Add", x, attended)
        x = _build_feed_forward(graph, x, name, dim, config.decoder_ffn_dim, "Relu")
    logits = graph.linear(
        graph.layer_norm(x, "decoder.norm", dim), "decoder.output", dim, config.vocabulary_size, bias=False
    )
    graph.output("logits", logits, ("C", "W", config.vocabulary_size))
    return graph.build()


def build_alignment(config: ModelConfig) -> onnx.ModelProto:
    """Cross-attention of the tokens of one hypothesis, with teacher forcing.

    ``tokens`` (1, L), ``positions`` (1, L), ``causal_mask`` (L, L), 0 or minus infinity, and the source's ``source_keys_l`` and
    ``source_values_l`` to ``attention`` (L, T), the mean over the alignment heads.
    """
    graph, dim, heads = GraphBuilder("alignment"), config.decoder_dim, config.decoder_heads
    tokens = graph.input("tokens", (1, "L"), TensorProto.INT64)
    positions = graph.input("positions", (1, "L"), TensorProto.INT64)
    causal_mask = graph.input("causal_mask", ("L", "L"))
    x = _embed(graph, tokens, positions, config)
    chosen = config.alignment_heads or tuple((config.decoder_layers - 1, head) for head in range(heads))
    shares: list[str] = []
    for number in range(1 + max(layer for layer, _ in chosen)):
        name = f"decoder.{number}"
        normed = graph.layer_norm(x, f"{name}.attention_norm", dim)
        attended = _build_self_attention(graph, normed, f"{name}.attention", dim, heads, causal_mask)
        x = graph.node("Add", x, attended)
        source = (
            graph.input(f"source_keys_{number}", (1, heads, dim // heads, "T")),
            graph.input(f"source_values_{number}", (1, heads, "T", dim // heads)),
        )
        attended, found = _build_cross_attention(graph, x, name, source, None, config)
        if of_layer := [head for layer, head in chosen if layer == number]:
            shares.append(graph.node("Gather", found, graph.integers(*of_layer), axis=1))
        x = graph.node("Add", x, attended)
        x = _build_feed_forward(graph, x, name, dim, config.decoder_ffn_dim, "Relu")
    joined = shares[0] if len(shares) == 1 else graph.node("Concat", *shares, axis=1)
    graph.output("attention", graph.node("ReduceMean", joined, graph.integers(0, 1), keepdims=0), ("L", "T"))
    return graph.build()


def _embed(graph: GraphBuilder, tokens: str, positions: str, config: ModelConfig) -> str:
    """Embed tokens; the scale is contained in the weights."""
    embedding = graph.weight("decoder.embedding", config.vocabulary_size, config.decoder_dim)
    table = graph.weight("decoder.positions", count_positions(config), config.decoder_dim)
    return graph.node("Add", graph.node("Gather", embedding, tokens), graph.node("Gather", table, positions))


def _build_cross_attention(
    graph: GraphBuilder,
    x: str,
    name: str,
    source: tuple[str, str],
    mask: str | None,
    config: ModelConfig,
) -> tuple[str, str]:
    """Return the attended values and the shares (B, heads, L, T). The weights contain the scale of the queries."""
    dim, heads = config.decoder_dim, config.decoder_heads
    normed = graph.layer_norm(x, f"{name}.cross_norm", dim)
    queries = graph.linear(normed, f"{name}.cross.queries", dim, dim)
    scores = graph.node("MatMul", graph.split_heads(queries, heads, dim // heads, (0, 2, 1, 3)), source[0])
    if mask is not None:
        scores = graph.node("Add", scores, mask)
    shares = graph.node("Softmax", scores, axis=-1)
    attended = graph.merge_heads(graph.node("MatMul", shares, source[1]), dim)
    return graph.linear(attended, f"{name}.cross.out", dim, dim), shares


BUILDERS: dict[str, Callable[[ModelConfig], onnx.ModelProto]] = {
    "video_frontend": build_video_frontend,
    "encoder": build_encoder,
    "source_projection": build_source_projection,
    "decoder_step": build_decoder_step,
    "alignment": build_alignment,
}


def write_graphs(config: ModelConfig, folder: Path) -> None:
    """Write the graphs of an architecture to a folder, with an index of the weights that each one needs."""
    folder.mkdir(parents=True, exist_ok=True)
    weights: dict[str, list[str]] = {}
    for name, build in BUILDERS.items():
        model = build(config)
        weights[name] = [tensor.name for tensor in model.graph.initializer if tensor.external_data]
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    index = {"config": describe_architecture(config), "weights": weights}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")
