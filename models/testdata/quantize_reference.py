"""Makes quantize_reference.json: what ONNX Runtime's quantizer does with our models.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
    cargo test --release -p sapwood-models --test quantize_like_onnxruntime   # writes the models
    ORT_DISABLE_TELEMETRY=1 venv/bin/python quantize_reference.py TARGET_DIR/tmp
"""

import collections
import json
import pathlib
import sys

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPERATORS = [
    "Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Relu", "Clip",
    "Concat", "MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice",
]
CASES = {
    "cnn": (1, (48, 1, 8, 8), 0.0, 1.0),
    "mlp": (2, (48, 64), -1.0, 1.0),
    "block": (3, (48, 2, 6, 6), -1.0, 1.0),
}


def lcg(seed, shape, low, high):
    """The generator of the Rust test, in float32 arithmetic."""
    low, high = np.float32(low), np.float32(high)
    values = np.empty(int(np.prod(shape)), np.float32)
    for i in range(values.size):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        unit = np.float32(seed >> 40) / np.float32(1 << 24)
        values[i] = low + (high - low) * unit
    return values.reshape(shape)


class Reader(CalibrationDataReader):
    def __init__(self, data):
        self.batches = iter(np.array_split(data, 3))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch}


def describe(path):
    graph = onnx.load(path).graph
    initializers = {}
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).ravel()
        if values.dtype == np.float32:
            initializers[tensor.name] = [float(v) for v in values]
        elif tensor.name.endswith("_zero_point"):
            initializers[tensor.name] = [int(v) for v in values]
        else:
            values = values.astype(np.int64)
            initializers[tensor.name] = [int(values.sum()), int((values**2).sum())]
    operators = collections.Counter(node.op_type for node in graph.node)
    return {"operators": operators, "initializers": initializers}


def main():
    folder = pathlib.Path(sys.argv[1])
    reference = {}
    for name, (seed, shape, low, high) in CASES.items():
        reference[name] = {}
        for target, reduce_range in (("x86_64-vnni", False), ("x86_64", True)):
            out = folder / f"{name}.{target}.reference.onnx"
            quantize_static(
                folder / f"{name}.onnx",
                out,
                Reader(lcg(seed, shape, low, high)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            reference[name][target] = describe(out)
    target = pathlib.Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(reference, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
