"""Federated averaging in PyTorch and with `sapwood run simulate`: the same network, start, partition and settings.

    cargo build --release
    pip install torch onnx onnxscript numpy
    tests/interop/parity/fetch.sh DATA
    python tests/interop/fedavg.py --data DATA --json fedavg.json

Each class is spread over ten nodes in proportions that a Dirichlet distribution draws (Hsu, Qi and Brown 2019), anew for each seed.
Prints the accuracy on the test data after three of the rounds, and the paired difference of the last with its 95 % interval
(Student's t over the seeds). docs/PARITY.md has what came out.
"""

import argparse
import copy
import gzip
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from parity.both import difference, export
from parity.data import fashion
from parity.families import lenet

NODES = 10
ROOT = Path(__file__).resolve().parents[2]
RUN = """name = "fedavg"
seed = {seed}
[model]
file = "start.onnx"
[data]
source = "train.npz"
[train]
rounds = {rounds}
local_epochs = {epochs}
batch = {batch}
lr = {lr}
momentum = {momentum}
[strategy]
example_cap = {cap}
[cohort]
size = {nodes}
[secure_aggregation]
mode = "off"
[privacy]
unit = "none"
clip = 100.0
[evaluate]
data = "test.npz"
every = 1
"""


def digits(_):
    """scikit-learn's digits, of which every fifth is for testing."""
    with gzip.open(ROOT / "data/digits.csv.gz") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    test = np.arange(len(rows)) % 5 == 4
    return tuple(({"x": rows[half, :64] / 16}, rows[half, 64].astype(np.int64)) for half in (~test, test))


def perceptron():
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


@dataclass(frozen=True)
class Setting:
    read: Callable
    build: Callable[[], nn.Module]
    rounds: int
    epochs: int
    batch: int
    lr: float
    momentum: float


SETTINGS = {
    "digits": Setting(digits, perceptron, 30, 5, 16, 0.05, 0.9),
    "fashion": Setting(fashion, lenet, 20, 2, 32, 0.05, 0.0),
}


def dealt(labels, concentration, generator):
    """The node of each row; no node without a row."""
    while True:
        nodes = np.zeros(len(labels), np.int64)
        for label in np.unique(labels):
            rows = generator.permutation(np.flatnonzero(labels == label))
            shares = generator.dirichlet([concentration] * NODES).cumsum()[:-1]
            for node, part in enumerate(np.split(rows, (shares * len(rows)).round().astype(int))):
                nodes[part] = node
        if len(np.unique(nodes)) == NODES:
            return nodes


def in_pytorch(network, setting, train, test, nodes, seed):
    """Accuracy after each round."""
    inputs, labels = torch.from_numpy(train[0]["x"]), torch.from_numpy(train[1])
    accuracies = []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(setting.rounds):
        total = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
        for node in range(NODES):
            own = torch.from_numpy(np.flatnonzero(nodes == node))
            local = copy.deepcopy(network).train()
            optimizer = torch.optim.SGD(local.parameters(), lr=setting.lr, momentum=setting.momentum)
            for _ in range(setting.epochs):
                for rows in own[torch.randperm(len(own), generator=generator)].split(setting.batch):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(local(inputs[rows]), labels[rows]).backward()
                    optimizer.step()
            for name, value in local.state_dict().items():
                total[name] += value * (len(own) / len(labels))
        network.load_state_dict(total)
        network.eval()
        with torch.no_grad():
            answers = torch.cat([network(part) for part in torch.from_numpy(test[0]["x"]).split(1000)]).argmax(1).numpy()
        accuracies.append(float((answers == test[1]).mean()))
    return accuracies


def with_sapwood(binary, setting, seed, examples, folder):
    # The clip norm and the cap are out of the way, and no larger than that: updates travel in fixed point.
    text = RUN.format(seed=seed, nodes=NODES, cap=examples, **{k: getattr(setting, k) for k in ("rounds", "epochs", "batch", "lr", "momentum")})
    (folder / "run.toml").write_text(text)
    command = [str(binary), "--json", "run", "simulate", str(folder / "run.toml"), "--nodes", str(NODES), "--partition", "column:node"]
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE).stdout)
    if "error" in answer:
        raise RuntimeError(answer["error"]["message"])
    return [record["accuracy"] for record in answer["data"]["rounds"]]


def compare(setting, concentration, seed, data, binary):
    train, test = setting.read(data)
    torch.manual_seed(seed)
    start = setting.build()
    nodes = dealt(train[1], concentration, np.random.default_rng(seed))
    # The simulator's node `i` has the i-th value in order of appearance, which changes nothing here.
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        export(copy.deepcopy(start).train(), train[0], 17, False, folder / "start.onnx")
        np.savez(folder / "train.npz", y=train[1], node=nodes, **train[0])
        np.savez(folder / "test.npz", y=test[1], **test[0])
        ours = with_sapwood(binary, setting, seed, len(train[1]), folder)
    return in_pytorch(start, setting, train, test, nodes, seed), ours


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that fetch.sh filled")
    parser.add_argument("--sapwood", type=Path, default=ROOT / "target/release/sapwood", help="the binary")
    parser.add_argument("--sets", default=",".join(SETTINGS), help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--concentrations", default="0.1,0.5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where all figures go")
    args = parser.parse_args()
    # The exporter tells what it would have liked to see installed.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    runs, missed = [], False
    print("| data | Dirichlet | rounds | PyTorch, % | Sapwood, % | difference at the end, points | 95 % interval |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in args.sets.split(","):
        setting = SETTINGS[name]
        for concentration in map(float, args.concentrations.split(",")):
            pairs = []
            for seed in range(1, args.seeds + 1):
                pairs.append(compare(setting, concentration, seed, args.data, args.sapwood))
                theirs, ours = pairs[-1]
                runs.append({"data": name, "dirichlet": concentration, "seed": seed, "pytorch": theirs, "sapwood": ours})
                print(f"{name} {concentration}, seed {seed}: PyTorch {theirs[-1]:.4f}, Sapwood {ours[-1]:.4f}", file=sys.stderr)
                if args.json:
                    args.json.write_text(json.dumps(runs, indent=1) + "\n")
            shown = [setting.rounds // 6, setting.rounds // 3, setting.rounds]
            mean = lambda side: ", ".join(f"{100 * statistics.mean(pair[side][at - 1] for pair in pairs):.2f}" for at in shown)
            last = [[100 * pair[side][-1] for pair in pairs] for side in (1, 0)]
            middle, half = difference(*last)
            missed |= middle - half > 0 or middle + half < 0
            spread = ", ".join(f"± {statistics.stdev(side):.2f}" for side in last[::-1]) if len(pairs) > 1 else ""
            interval = f"{middle - half:+.2f} to {middle + half:+.2f}"
            print(f"| {name} | {concentration} | {shown} | {mean(0)} | {mean(1)} ({spread}) | {middle:+.2f} | {interval} |")
    sys.exit(missed)


if __name__ == "__main__":
    main()
