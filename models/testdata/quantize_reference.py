"""Makes quantize_reference.json: what ONNX Runtime's quantizer does with our models.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
    cargo test --release -p sapwood-models --test quantize_like_onnxruntime   # writes models and data
    ORT_DISABLE_TELEMETRY=1 venv/bin/python quantize_reference.py TARGET_DIR/tmp
"""

import collections
import json
import logging
import pathlib
import sys

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

MODELS = [
    "cnn", "mlp", "block", "rarities", "mobilenet", "lstm", "transformer",
    "cnn-legacy", "cnn-dynamo", "gru-legacy", "transformer-legacy", "transformer-dynamo",
]  # fmt: skip
DYNAMIC = ["cnn", "mlp", "lstm", "transformer"]
TENSORRT = {
    "ActivationSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add"],
}
CASES = {
    "x86_64-vnni": {},
    "x86_64-vnni percentile:99.9": {
        "calibrate_method": CalibrationMethod.Percentile, "extra_options": {"CalibPercentile": 99.9},
    },
    "x86_64": {"reduce_range": True},
    "jetson-tensorrt": {"activation_type": QuantType.QInt8, "extra_options": TENSORRT},
}  # fmt: skip


class Reader(CalibrationDataReader):
    def __init__(self, model):
        graph = onnx.load(model).graph
        kind = graph.input[0].type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim[1:]]
        data = np.fromfile(model.with_suffix(".x"), "<f4").reshape(-1, *shape)
        data = data.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        self.name, self.batches = graph.input[0].name, iter(np.array_split(data, 3))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def describe(path):
    """Operators, and initializers that the quantizer made: scales and zero points in full, integers as sum and sum of squares."""
    graph = onnx.load(path).graph
    initializers = {}
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).ravel()
        if tensor.name.endswith("_scale"):
            initializers[tensor.name] = [float(str(v)) for v in values]
        elif tensor.name.endswith("_zero_point"):
            initializers[tensor.name] = [int(v) for v in values]
        elif tensor.name.endswith("_quantized"):
            values = values.astype(np.int64)
            initializers[tensor.name] = [int(values.sum()), int((values**2).sum())]
    operators = collections.Counter(node.op_type for node in graph.node)
    return {"operators": operators, "initializers": initializers}


def main():
    folder = pathlib.Path(sys.argv[1])
    reference = {}
    for name in MODELS:
        reference[name] = {}
        for case, options in CASES.items():
            model, out = folder / f"{name}.onnx", folder / f"{name}.reference.onnx"
            options = {"activation_type": QuantType.QUInt8, **options}
            quantize_static(
                model, out, Reader(model), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8, **options
            )
            reference[name][case] = describe(out)
        if name not in DYNAMIC:
            continue
        quantize_dynamic(model, out, ["MatMul", "LSTM", "Gather"], per_channel=True, weight_type=QuantType.QInt8)
        reference[name]["dynamic"] = describe(out)
    target = pathlib.Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(reference, sort_keys=True) + "\n")


if __name__ == "__main__":
    logging.disable()
    main()
