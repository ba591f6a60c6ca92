"""PyTorch's exports of each family, quantized by `sapwood model quantize` and by ONNX Runtime's own quantizer after its `quant_pre_process`:
file, scales, and the operators that ONNX Runtime makes of both. docs/PARITY.md has what came out.

    cargo build --release
    pip install torch onnx onnxscript onnxruntime sympy numpy
    tests/interop/parity/fetch.sh DATA
    python tests/interop/parity/data.py DATA SETS
    python tests/interop/parity.py --data DATA --export-only SETS
    python tests/interop/quantizers.py SETS
"""

import argparse
import collections
import json
import logging
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES, BATCH = 256, 32


def data_of(model):
    if model.startswith("transformer"):
        return "plays"
    if model.startswith(("lstm", "gru")):
        return "vowels-lengths" if "lengths" in model else "vowels"
    return "fashion"


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def by_onnxruntime(model, out, examples, folder):
    prepared = folder / "prepared.onnx"
    try:
        quant_pre_process(str(model), str(prepared))
    except Exception:  # its symbolic shapes do not cover every operator
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    names = [value.name for value in onnx.load(model).graph.input]
    feeds = [{name: examples[name][at : at + BATCH] for name in names} for at in range(0, EXAMPLES, BATCH)]
    quantize_static(
        str(prepared), str(out), Reader(feeds), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip


def optimized(model, folder):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def scales(model):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer if t.name.endswith("_scale")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="a folder with data sets and exports")
    parser.add_argument("--sapwood", type=Path, default=ROOT / "target/release/sapwood", help="the binary")
    args = parser.parse_args()
    logging.disable()

    def sapwood(*words):
        answer = json.loads(subprocess.run([args.sapwood, "--json", "model", *map(str, words)], stdout=subprocess.PIPE).stdout)
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])

    print("| export | file, of theirs | scales in both, of ours and theirs | differ by | operators, ours without theirs | theirs without ours |")
    print("| --- | --- | --- | --- | --- | --- |")
    for export in sorted(args.sets.glob("*.onnx")):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            float32, ours, theirs, small = (folder / name for name in ("float.onnx", "ours.onnx", "theirs.onnx", "small.npz"))
            stored = np.load(args.sets / f"{data_of(export.stem)}-train.npz")
            examples = {name: stored[name][:EXAMPLES] for name in stored}
            np.savez(small, **examples)
            # What is exported for training is written for inference.
            sapwood("train", export, "--data", small, "--epochs", 1, "--lr", 0.001, "--out", float32)
            sapwood("quantize", float32, "--calibration", small, "--target", "aarch64", "--out", ours)
            by_onnxruntime(float32, theirs, examples, folder)
            a, b = scales(ours), scales(theirs)
            common = [name for name in a if name in b and np.isfinite(b[name]).all() and a[name].shape == b[name].shape]
            differ = max(float(np.max(np.abs(a[name] - b[name]) / b[name])) for name in common)
            size = ours.stat().st_size / theirs.stat().st_size
            ours, theirs = optimized(ours, folder), optimized(theirs, folder)
            more = [", ".join(f"{count} {op}" for op, count in sorted(side.items())) or "-" for side in (ours - theirs, theirs - ours)]
            print(f"| {export.stem} | {size:.3f} | {len(common)} of {len(a)}, {len(b)} | {differ:.0e} | {more[0]} | {more[1]} |", flush=True)


if __name__ == "__main__":
    main()
