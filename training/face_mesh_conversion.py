# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "tflite==2.18.0",           # reads the format of LiteRT
#     "onnx==1.23.2",
#     "onnxruntime>=1.22,<2",
#     "ai-edge-litert==2.3.0",    # the reference that the result is compared with
#     "numpy>=2.1,<3",
# ]
# ///
"""Converts MediaPipe's face mesh to ONNX and compares the result with LiteRT.

pip download --no-deps mediapipe==0.10.21
uv run training/face_mesh_conversion.py mediapipe-0.10.21-*.whl inference_server/assets/mediapipe-face-mesh.onnx

The converted model needs no library that the server does not have. Two operations are written as convolutions, which
onnxruntime keeps in one memory layout: with its own PReLU and Pad, a face takes 2.5 times as long. Weights stay
float16, as published; onnxruntime converts them when it loads the model.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SOURCE = "mediapipe/modules/face_landmark/face_landmark.tflite"
SOURCE_SHA256 = "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
INPUT_SHAPE = [1, 3, 192, 192]
MESH_VALUES = 3 * 468

OPSET, IR_VERSION = 17, 8
DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
OPERATORS = {number: name for name, number in vars(tflite.BuiltinOperator).items() if name.isupper()}

COMPARED_IMAGES = 50
MAX_DIFFERENCE = 1e-3  # pixels of the input image, and logits


class Converter:
    """Converts the graph operator by operator, from (N, H, W, C) to (N, C, H, W)."""

    def __init__(self, content: bytes) -> None:
        self._model = tflite.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)
        self._dequantized: dict[int, int] = {}  # tensor by its dequantized copy
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def convert(self) -> onnx.ModelProto:
        """Return the model.

        Raises:
            ValueError: an operator is unknown or has an option that the published model does not use.
        """
        for index in range(self._graph.OperatorsLength()):
            self._convert_operator(self._graph.Operators(index))
        sizes = {int(np.prod(self._shape(tensor))): tensor for tensor in self._graph.OutputsAsNumpy()}
        for name, size in (("mesh", MESH_VALUES), ("presence", 1)):
            self._add_node("Flatten", [_name(sizes[size])], name)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, INPUT_SHAPE)
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
            for name, size in (("mesh", MESH_VALUES), ("presence", 1))
        ]
        graph = helper.make_graph(self._nodes, "face_mesh", [image], outputs, self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.doc_string = (
            "MediaPipe's face mesh (face_landmark.tflite of mediapipe 0.10.21), Copyright The MediaPipe Authors, "
            "Apache License 2.0; converted by training/face_mesh_conversion.py of Gorggle"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _convert_operator(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs, (output,) = operator.InputsAsNumpy().tolist(), operator.OutputsAsNumpy().tolist()
        converters: dict[str, Callable[[Any, list[int], int], None]] = {
            "DEQUANTIZE": self._convert_dequantize,
            "CONV_2D": self._convert_convolution,
            "DEPTHWISE_CONV_2D": self._convert_depthwise_convolution,
            "PRELU": self._convert_prelu,
            "ADD": self._convert_add,
            "MAX_POOL_2D": self._convert_max_pool,
            "PAD": self._convert_channel_pad,
        }
        if kind not in converters:
            raise ValueError(f"the model has the operator {kind}; expected {', '.join(converters)}")
        converters[kind](operator.BuiltinOptions(), inputs, output)

    def _convert_dequantize(self, _options: Any, inputs: list[int], output: int) -> None:
        self._dequantized[output] = inputs[0]

    def _convert_convolution(self, table: Any, inputs: list[int], output: int) -> None:
        options = _read_options(tflite.Conv2DOptions, table)
        weights = self._read_constant(inputs[1]).transpose(0, 3, 1, 2)
        self._add_convolution(options, inputs, weights, output, groups=1)

    def _convert_depthwise_convolution(self, table: Any, inputs: list[int], output: int) -> None:
        options = _read_options(tflite.DepthwiseConv2DOptions, table)
        weights = self._read_constant(inputs[1]).transpose(3, 0, 1, 2)
        self._add_convolution(options, inputs, weights, output, groups=len(weights))

    def _add_convolution(
        self, options: Any, inputs: list[int], weights: NDArray[Any], output: int, groups: int
    ) -> None:
        _require_no_activation(options)
        strides, kernel = (options.StrideH(), options.StrideW()), weights.shape[2:]
        pads = [(0, 0), (0, 0)]
        if options.Padding() == tflite.Padding.SAME:
            sides = self._shape(inputs[0])[1:3]
            pads = [_compute_padding(*size) for size in zip(sides, kernel, strides, strict=True)]
        self._add_node(
            "Conv",
            [
                _name(inputs[0]),
                self._add_constant(f"{_name(output)}_weights", weights),
                self._add_constant(f"{_name(output)}_bias", self._read_constant(inputs[2])),
            ],
            _name(output),
            kernel_shape=kernel,
            strides=strides,
            pads=[begin for begin, _ in pads] + [end for _, end in pads],
            group=groups,
        )

    def _convert_prelu(self, _table: Any, inputs: list[int], output: int) -> None:
        """Write slope * x + (1 - slope) * relu(x), each product as a convolution of one pixel."""
        slopes = self._read_constant(inputs[1]).astype(np.float32).reshape(-1, 1, 1, 1)
        source, name = _name(inputs[0]), _name(output)
        self._add_node("Relu", [source], f"{name}_relu")
        for part, factor in ((source, slopes), (f"{name}_relu", 1 - slopes)):
            constant = self._add_constant(f"{part}_to_{name}_factor", factor)
            self._add_node(
                "Conv", [part, constant], f"{part}_to_{name}", kernel_shape=[1, 1], group=len(slopes)
            )
        self._add_node("Add", [f"{source}_to_{name}", f"{name}_relu_to_{name}"], name)

    def _convert_add(self, table: Any, inputs: list[int], output: int) -> None:
        _require_no_activation(_read_options(tflite.AddOptions, table))
        self._add_node("Add", [_name(tensor) for tensor in inputs], _name(output))

    def _convert_max_pool(self, table: Any, inputs: list[int], output: int) -> None:
        options = _read_options(tflite.Pool2DOptions, table)
        _require_no_activation(options)
        kernel, strides = (
            (options.FilterHeight(), options.FilterWidth()),
            (options.StrideH(), options.StrideW()),
        )
        if any(side % stride for side, stride in zip(self._shape(inputs[0])[1:3], strides, strict=True)):
            raise ValueError("a pooled image is not a multiple of the stride: padding is not implemented")
        self._add_node("MaxPool", [_name(inputs[0])], _name(output), kernel_shape=kernel, strides=strides)

    def _convert_channel_pad(self, _table: Any, inputs: list[int], output: int) -> None:
        """Write the appended channels of zeros as a convolution with the identity."""
        added = self._read_constant(inputs[1])
        if added[:3].any() or added[3, 0]:
            raise ValueError(f"the padding is {added.tolist()}; expected channels at the end only")
        channels = self._shape(inputs[0])[3]
        weights = np.eye(channels + int(added[3, 1]), channels, dtype=np.float32)[:, :, None, None]
        constant = self._add_constant(f"{_name(output)}_identity", weights)
        self._add_node("Conv", [_name(inputs[0]), constant], _name(output), kernel_shape=[1, 1])

    def _add_node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        renamed = ["image" if name == _name(0) else name for name in inputs]
        self._nodes.append(helper.make_node(kind, renamed, [output], name=output, **attributes))

    def _add_constant(self, name: str, values: NDArray[Any]) -> str:
        values = np.ascontiguousarray(values)
        if values.dtype == np.float16:
            self._initializers.append(numpy_helper.from_array(values, f"{name}_float16"))
            self._add_node("Cast", [f"{name}_float16"], name, to=TensorProto.FLOAT)
        else:
            self._initializers.append(numpy_helper.from_array(values, name))
        return name

    def _read_constant(self, index: int) -> NDArray[Any]:
        tensor = self._graph.Tensors(self._dequantized.get(index, index))
        values = np.frombuffer(
            self._model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), DTYPES[tensor.Type()]
        )
        return values.reshape(tensor.ShapeAsNumpy())

    def _shape(self, index: int) -> list[int]:
        shape: list[int] = self._graph.Tensors(int(index)).ShapeAsNumpy().tolist()
        return shape


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the model of a wheel, compare it with LiteRT, and write it; return 1 if they differ."""
    parser = argparse.ArgumentParser(description="Convert MediaPipe's face mesh to ONNX.")
    parser.add_argument("wheel", type=Path, help="mediapipe 0.10.21, from PyPI")
    parser.add_argument("onnx", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    with zipfile.ZipFile(options.wheel) as wheel:
        content = wheel.read(SOURCE)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SOURCE_SHA256:
        print(f"{SOURCE} has the SHA-256 {digest}; expected {SOURCE_SHA256}", file=sys.stderr)
        return 1
    converted = Converter(content).convert().SerializeToString(deterministic=True)
    difference = measure_difference(content, converted)
    print(f"maximum difference to LiteRT over {COMPARED_IMAGES} images: {difference:.6f} pixels")
    if difference > MAX_DIFFERENCE:
        print(f"it exceeds {MAX_DIFFERENCE}: the model was not written", file=sys.stderr)
        return 1
    options.onnx.write_bytes(converted)
    print(f"{options.onnx}: {len(converted)} bytes, SHA-256 {hashlib.sha256(converted).hexdigest()}")
    return 0


def measure_difference(content: bytes, converted: bytes) -> float:
    """Return the maximum difference of any output between LiteRT and onnxruntime over random images."""
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    reference = Interpreter(model_content=content, num_threads=1)
    reference.allocate_tensors()
    (image_details,) = reference.get_input_details()
    outputs = {int(np.prod(details["shape"])): details["index"] for details in reference.get_output_details()}
    session = onnxruntime.InferenceSession(converted, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    largest = 0.0
    for index in range(COMPARED_IMAGES):
        # From noise to soft gradients: each image is enlarged from one of 2 to 192 pixels.
        side = np.linspace(2, INPUT_SHAPE[2], COMPARED_IMAGES).astype(int)[index]
        coarse = rng.random((side, side, 3), np.float32)
        places = np.arange(INPUT_SHAPE[2]) * side // INPUT_SHAPE[2]
        image = coarse[places][:, places]
        reference.set_tensor(image_details["index"], image[None])
        reference.invoke()
        converted_outputs = session.run(["mesh", "presence"], {"image": image.transpose(2, 0, 1)[None]})
        for values, size in zip(converted_outputs, (MESH_VALUES, 1), strict=True):
            expected = reference.get_tensor(outputs[size])
            largest = max(largest, float(np.abs(np.asarray(values).ravel() - expected.ravel()).max()))
    return largest


def _read_options(kind: Any, table: Any) -> Any:
    options = kind()
    options.Init(table.Bytes, table.Pos)
    return options


def _require_no_activation(options: Any) -> None:
    if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
        raise ValueError("the model has a fused activation, which is not implemented")


def _compute_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after a side, as TensorFlow's "same"."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _name(tensor: int) -> str:
    return f"tensor_{tensor}"


if __name__ == "__main__":
    sys.exit(main())
