"""Loads what Sapwood trained back into the PyTorch network that was exported: `sapwood model weights`, `load_state_dict`, and the same
answers. Every family of `parity/families.py`, the graphs of `torch/`, both exporters, and what they write for inference.

    cargo build --release && target/release/sapwood runtime install
    pip install torch onnx onnxscript numpy
    python tests/interop/torch_weights.py

The exit code is 1 if a network answers otherwise than its file, or strict loading refuses weights that should fit.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from parity.families import FAMILIES
from torch_curves import examples, networks

HERE = Path(__file__).parent
TOLERANCE = 1e-4
# Arrays by input, and classes.
INPUTS = {
    "fashion": ({"x": lambda rows: rows.random((24, 1, 28, 28), np.float32)}, 10),
    "vowels": ({"x": lambda rows: rows.standard_normal((24, 29, 12), np.float32)}, 9),
    "vowels-lengths": (
        {"x": lambda rows: rows.standard_normal((24, 29, 12), np.float32), "lengths": lambda rows: rows.integers(1, 30, 24)},
        9,
    ),
    "plays": ({"x": lambda rows: rows.integers(1, 99, (24, 64))}, 3),
}
EXPORTERS = {
    "legacy": {"dynamo": False, "training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False, "opset_version": 17},
    "dynamo": {"dynamo": True, "optimize": False, "external_data": False},
    "legacy for inference": {"dynamo": False, "opset_version": 17},
    "dynamo for inference": {"dynamo": True, "external_data": False},
}


def sapwood(binary, *args):
    done = subprocess.run([str(binary), "model", *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


def export(network, inputs, exporter, path):
    more = dict(EXPORTERS[exporter])
    if more["dynamo"]:
        batch = torch.export.Dim("batch")
        more["dynamic_shapes"] = tuple({0: batch} for _ in inputs)
    else:
        more["dynamic_axes"] = {name: {0: "batch"} for name in inputs}
    network.train("inference" not in exporter)
    rows = tuple(torch.from_numpy(array[:4]) for array in inputs.values())
    torch.onnx.export(network, rows, str(path), input_names=list(inputs), output_names=["logits"], verbose=False, **more)


def round_trip(binary, network, exported, inputs, labels, folder):
    """The largest difference of a logit; the network starts from other weights than the file."""
    data, trained, weights, answers = (folder / name for name in ("data.npz", "trained.onnx", "weights.npz", "answers.npz"))
    np.savez(data, y=labels, **inputs)
    sapwood(binary, "train", exported, "--data", data, "--epochs", 3, "--batch", 8, "--optimizer", "adam", "--lr", 0.003, "--out", trained)
    sapwood(binary, "weights", trained, "--out", weights)
    np.savez(data, **inputs)
    sapwood(binary, "run", trained, "--input", data, "--out", answers)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in np.load(weights).items()})
    network.eval()
    with torch.no_grad():
        ours = network(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    (theirs,) = np.load(answers).values()
    return float(np.abs(ours - theirs).max())


def cases():
    """Name, a function that makes a network with fresh weights, its inputs, labels, and files that exist or exporters."""
    for name, family in FAMILIES.items():
        draw = np.random.default_rng(7)
        arrays, classes = INPUTS[family.data]
        yield name, family.build, {key: make(draw) for key, make in arrays.items()}, draw.integers(0, classes, 24), EXPORTERS
    for name, shape, _, network in networks():
        x, y = examples(shape, tokens=name == "text")
        files = {exporter: HERE / "torch" / f"{name}-{exporter}.onnx" for exporter in ("legacy", "dynamo")}
        yield f"torch/{name}", lambda network=network: network, {"x": x.numpy()}, y.numpy(), files


def main(binary):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    missed = 0
    for name, build, inputs, labels, exporters in cases():
        for exporter in exporters:
            with tempfile.TemporaryDirectory() as folder:
                exported = Path(folder) / "exported.onnx"
                torch.manual_seed(1)
                try:
                    if exporters is EXPORTERS:
                        export(build(), inputs, exporter, exported)
                    else:
                        exported = exporters[exporter]
                    torch.manual_seed(2)
                    worst = round_trip(binary, build(), exported, inputs, labels, Path(folder))
                    found = f"logits differ by {worst:.1e}"
                    good = worst <= TOLERANCE
                except (RuntimeError, TypeError) as error:
                    # BatchNorm is folded into convolutions there: strict loading must refuse it.
                    good = "inference" in exporter and "state_dict" in str(error)
                    found = "refused: " + " ".join(str(error).split())[:160]
                missed += not good
                print(f"{name}, {exporter}: {found}{'' if good else ', MISSED'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sapwood", type=Path, default=HERE.parents[1] / "target/release/sapwood")
    sys.exit(main(arguments.parse_args().sapwood))
