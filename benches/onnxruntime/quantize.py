"""The peer of `quantize.rs`: ONNX Runtime's own quantizer, and a judge of both.

    quantize.py data FOLDER OUT              Fashion-MNIST's IDX files as OUT/train.npz and OUT/test.npz, x from 0 to 1
    quantize.py quantize MODEL X OUT METHOD TARGET  quantizes; prints seconds and peak memory
    quantize.py judge FP32 OURS THEIRS TEST  size, operators of the optimized graphs, latencies and right answers, as JSON
"""

import collections
import gzip
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

PAIRS, RUNS, BATCH = 20, 50, 32


def data(folder, out):
    def idx(name, header, shape):
        return np.frombuffer(gzip.decompress((folder / name).read_bytes())[header:], np.uint8).reshape(shape)

    for part, name in (("train", "train"), ("test", "t10k")):
        x = idx(f"{name}-images-idx3-ubyte.gz", 16, (-1, 1, 28, 28)).astype(np.float32) / 255
        np.savez(out / f"{part}.npz", x=x, y=idx(f"{name}-labels-idx1-ubyte.gz", 8, -1).astype(np.int64))


class Reader(CalibrationDataReader):
    def __init__(self, name, x):
        self.batches = iter([{name: x[start : start + BATCH]} for start in range(0, len(x), BATCH)])

    def get_next(self):
        return next(self.batches, None)


def quantize(model, x, out, method, target):
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        name = onnx.load(model).graph.input[0].name
        quantize_static(
            prepared, out, Reader(name, np.load(x)["x"]), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=target == "x86_64",
            calibrate_method=CalibrationMethod.Percentile if method == "percentile" else CalibrationMethod.MinMax,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def session(path, optimized=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators(path):
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimized.onnx"
        session(path, written)
        return collections.Counter(node.op_type for node in onnx.load(written).graph.node)


def judge(paths, test):
    examples = np.load(test)
    sessions = {name: session(path) for name, path in paths.items()}
    feed = next(iter(sessions.values())).get_inputs()[0]
    x = examples["x"].reshape(-1, *[dim for dim in feed.shape[1:]])
    right = {}
    for name, one in sessions.items():
        answers = [one.run(None, {feed.name: x[start : start + 500]})[0] for start in range(0, len(x), 500)]
        right[name] = int((np.concatenate(answers).argmax(1) == examples["y"]).sum())
    times = {name: [] for name in sessions}
    for pair in range(PAIRS + 2):
        # The order turns, so that none always follows the same.
        for name in sorted(sessions, key=lambda name: (list(sessions).index(name) + pair) % len(sessions)):
            taken = []
            for run in range(RUNS):
                started = time.perf_counter()
                sessions[name].run(None, {feed.name: x[run : run + 1]})
                taken.append(time.perf_counter() - started)
            if pair >= 2:
                times[name].append(statistics.median(taken) * 1e6)
    counted = {name: operators(path) for name, path in paths.items() if name != "fp32"}
    print(json.dumps({
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
        "right": right,
        "examples": len(x),
        "micros": times,
        "same_operators": counted["ours"] == counted["theirs"],
        "operators": counted,
        "onnxruntime": ort.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    logging.disable()
    match sys.argv[1:]:
        case ["data", folder, out]:
            data(Path(folder), Path(out))
        case ["quantize", model, x, out, method, target]:
            quantize(model, x, out, method, target)
        case ["judge", fp32, ours, theirs, test]:
            judge({"fp32": Path(fp32), "ours": Path(ours), "theirs": Path(theirs)}, test)
        case _:
            sys.exit(__doc__)
