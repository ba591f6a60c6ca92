"""Trains each family of networks in PyTorch and, exported before the first step by both exporters, with `sapwood model train`,
and compares accuracy on test data. Both sides take the examples in the same order. docs/PARITY.md has what came out.

    cargo build --release && target/release/sapwood runtime install
    pip install torch onnx onnxscript onnxruntime numpy
    tests/interop/parity/fetch.sh DATA
    python tests/interop/parity.py --data DATA --jobs 2 --json parity.json

A line of the table is met if PyTorch learned the task, the 95 % interval of the paired difference (Student's t over the seeds) lies
within 1.5 points, and Python's onnxruntime finds the accuracy and the loss that we find on both engines, within 1e-4. The exit code
is 1 if one is missed.
"""

import argparse
import copy
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from parity.both import difference, export
from parity.data import READ, save
from parity.families import FAMILIES
from parity.order import shuffled

POINTS, AGREEMENT = 1.5, 1e-4
EXPORTERS = ("legacy", "dynamo")
OPTIMIZERS = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01),
}
DECAY = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01}


def order_seed(seed, draw, stage):
    return 1000 * draw + 10 * seed + stage


def export_both(name, seed, inputs, folder):
    """A family's network as the seed draws it, and by exporter: opset and file."""
    family = FAMILIES[name]
    torch.manual_seed(seed)
    start = family.build().train()
    exported = {}
    for exporter in EXPORTERS:
        opsets = getattr(family, exporter)
        opset = opsets[seed % len(opsets)]
        exported[exporter] = opset, folder / f"{name}-{seed}-{exporter}.onnx"
        export(copy.deepcopy(start), inputs, opset, exporter == "dynamo", exported[exporter][1])
    return start, exported


def train_in_pytorch(network, family, data, seed, draw=0):
    inputs, labels = [torch.from_numpy(array) for array in data[0].values()], torch.from_numpy(data[1])
    network.train()
    losses = []
    for stage, (epochs, lr) in enumerate(family.stages):
        optimizer = OPTIMIZERS[family.optimizer](network.parameters(), lr)
        for epoch in range(epochs):
            total, order = 0.0, torch.from_numpy(shuffled(len(labels), order_seed(seed, draw, stage), epoch))
            for rows in order.split(family.batch):
                loss = torch.nn.functional.cross_entropy(network(*(array[rows] for array in inputs)), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            losses.append(total / len(labels))
    return losses


def score(logits, labels):
    """Accuracy and mean cross-entropy."""
    logits = logits.astype(np.float64)
    top = logits.max(1, keepdims=True)
    truth = logits[np.arange(len(labels)), labels] - top[:, 0]
    losses = np.log(np.exp(logits - top).sum(1)) - truth
    return {"accuracy": float((logits.argmax(1) == labels).mean()), "loss": float(losses.mean())}


def in_chunks(count, answer):
    return np.concatenate([answer(slice(at, at + 500)) for at in range(0, count, 500)])


def score_pytorch(network, data):
    network.eval()
    with torch.no_grad():
        rows = lambda at: network(*(torch.from_numpy(array[at]) for array in data[0].values())).numpy()
        return score(in_chunks(len(data[1]), rows), data[1])


def score_onnxruntime(path, data):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = lambda at: session.run(None, {name: array[at] for name, array in data[0].items()})[0]
    return score(in_chunks(len(data[1]), rows), data[1])


def sapwood(binary, *args):
    """What the command prints as JSON; one thread, as PyTorch has."""
    command = [str(binary), "--json", "model", *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "RAYON_NUM_THREADS": "1"})
    answer = json.loads(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"model {args[0]}: {answer['error']['message']}")
    return answer["data"]


def train_with_sapwood(binary, family, exported, data, trained, seed, draw=0):
    source, losses = exported, []
    settings = ["--data", data, "--out", trained, "--batch", family.batch, "--optimizer", family.optimizer]
    settings += ["--momentum", 0.9, "--weight-decay", DECAY[family.optimizer]]
    for stage, (epochs, lr) in enumerate(family.stages):
        done = sapwood(binary, "train", source, *settings, "--epochs", epochs, "--lr", lr, "--seed", order_seed(seed, draw, stage))
        losses += [epoch["loss"] for epoch in done["epochs"]]
        source = trained
    return losses


def compare(name, seed, data, binary, folder):
    """Trains one family from one start: in PyTorch, and from both files."""
    # The exporters tell what they would have liked to see installed.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    family = FAMILIES[name]
    train, test = READ[family.data](data)
    files = {half: folder / f"{family.data}-{half}.npz" for half in ("train", "test")}
    start, exported = export_both(name, seed, train[0], folder)
    runs = []
    for draw in range(family.draws):
        network, started = copy.deepcopy(start), time.perf_counter()
        losses = train_in_pytorch(network, family, train, seed, draw)
        theirs = {**score_pytorch(network, test), "losses": losses, "seconds": time.perf_counter() - started}
        for exporter, (opset, path) in exported.items():
            run = {"family": name, "seed": seed, "draw": draw, "exporter": exporter, "opset": opset, "pytorch": theirs}
            runs.append(run)
            started, trained = time.perf_counter(), path.with_suffix(".trained.onnx")
            try:
                losses = train_with_sapwood(binary, family, path, files["train"], trained, seed, draw)
                run["sapwood"] = {"losses": losses, "seconds": time.perf_counter() - started}
                for engine in ("burn", "ort"):
                    run[engine] = sapwood(binary, "eval", trained, "--data", files["test"], "--runtime", engine)
                verified = sapwood(binary, "verify", trained, "--data", files["test"], "--tolerance", 1)
                run["largest_logit_difference"] = verified["largest_difference"]
                run["onnxruntime"] = score_onnxruntime(trained, test)
            except Exception as error:  # one line of the table, not the end of the run
                run["error"] = str(error)
    return runs


def disagreement(run):
    """How far Python's onnxruntime is from us, in accuracy or loss, on either engine."""
    measures = [(engine, measure) for engine in ("burn", "ort") for measure in ("accuracy", "loss")]
    return max(abs(run[engine][measure] - run["onnxruntime"][measure]) for engine, measure in measures)


def summary(name, exporter, runs):
    """One line of the table, and whether it is met."""
    runs = [run for run in runs if (run["family"], run["exporter"]) == (name, exporter)]
    line = {"family": name, "exporter": exporter, "opsets": sorted({run["opset"] for run in runs}), "met": False}
    if failed := [run for run in runs if "error" in run]:
        return {**line, "error": failed[0]["error"]}
    seeds = sorted({run["seed"] for run in runs})

    def accuracies(side):
        """One for each seed, in percent."""
        return [100 * statistics.mean(run[side]["accuracy"] for run in runs if run["seed"] == seed) for seed in seeds]

    theirs, ours = accuracies("pytorch"), accuracies("burn")
    mean, half = difference(ours, theirs)
    line |= {"pytorch": statistics.mean(theirs), "sapwood": statistics.mean(ours)}
    line |= {"difference": mean, "interval": [mean - half, mean + half]}
    # Later epochs amplify what arithmetic makes of the last bits.
    line["first_epoch"] = max(abs(run["sapwood"]["losses"][0] - run["pytorch"]["losses"][0]) for run in runs)
    line["onnxruntime"] = max(disagreement(run) for run in runs)
    line["logits"] = max(run["largest_logit_difference"] for run in runs)
    learned = line["pytorch"] >= 100 * FAMILIES[name].least
    return {**line, "met": learned and abs(mean) + half <= POINTS and line["onnxruntime"] <= AGREEMENT}


def table(lines):
    columns = (
        "family", "exporter, opsets", "PyTorch, %", "Sapwood, %", "difference, points", "95 % interval",
        "first epoch's loss differs by", "onnxruntime's score by", "logits by", "",
    )  # fmt: skip
    rows = [columns, ["---"] * len(columns)]
    for line in lines:
        start = [line["family"], f"{line['exporter']} {', '.join(map(str, line['opsets']))}"]
        if "error" in line:
            rows.append([*start, *[""] * 7, f"**failed**: {line['error']}"])
            continue
        low, high = line["interval"]
        figures = [f"{line['pytorch']:.2f}", f"{line['sapwood']:.2f}", f"{line['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}"]
        differences = [f"{line[key]:.0e}" for key in ("first_epoch", "onnxruntime", "logits")]
        rows.append([*start, *figures, *differences, "met" if line["met"] else "**missed**"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--data", type=Path, required=True, help="the folder that fetch.sh filled")
    parser.add_argument("--sapwood", type=Path, default=root / "target/release/sapwood", help="the binary")
    parser.add_argument("--families", default=",".join(FAMILIES), help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1; at most 10")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, each on one thread")
    parser.add_argument("--json", type=Path, help="where all figures go")
    parser.add_argument("--export-only", type=Path, metavar="FOLDER", help="writes the exports of seed 1 and trains nothing")
    args = parser.parse_args()
    names = args.families.split(",")
    if args.export_only:
        for name in names:
            export_both(name, 1, READ[FAMILIES[name].data](args.data)[0][0], args.export_only)
        return
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    runs, lines = [], []

    def write():
        if args.json:
            args.json.write_text(json.dumps({**versions, "lines": lines, "runs": runs}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind in {FAMILIES[name].data for name in names}:
            save(kind, args.data, folder)
        # Spawned, since PyTorch's threads do not survive a fork.
        with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(compare, name, seed, args.data, args.sapwood, folder)
                for name in names for seed in range(1, args.seeds + 1)
            ]  # fmt: skip
            for job in as_completed(jobs):
                for run in job.result():
                    runs.append(run)
                    start = f"{run['family']}, seed {run['seed']}, {run['exporter']} {run['opset']}"
                    ours = run["error"] if "error" in run else f"{run['burn']['accuracy']:.4f}"
                    print(f"{start}: PyTorch {run['pytorch']['accuracy']:.4f}, Sapwood {ours}", file=sys.stderr)
                write()
    runs.sort(key=lambda run: (names.index(run["family"]), run["seed"], run["draw"], run["exporter"]))
    lines = [summary(name, exporter, runs) for name in names for exporter in EXPORTERS]
    write()
    print(table(lines))
    sys.exit(0 if all(line["met"] for line in lines) else 1)


if __name__ == "__main__":
    main()
