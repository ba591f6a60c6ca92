"""The peer of `training.rs`: writes five networks as ONNX, and times their training in PyTorch.

    training.py export FOLDER            writes FOLDER/NAME.onnx and prints {NAME: shape of an example}
    training.py time NAME THREADS        prints samples a second, the better of two epochs
"""

import json
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

CLASSES, BATCH = 10, 32


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(32, 64, batch_first=True), nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, activation="gelu")
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))


class Inverted(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018, figure 3)."""

    def __init__(self, read, written, stride, expansion=4):
        super().__init__()
        wide = read * expansion
        self.same = stride == 1 and read == written
        self.body = nn.Sequential(
            nn.Conv2d(read, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, written, 1, bias=False), nn.BatchNorm2d(written),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


def mobilenet():
    blocks = [(16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 80, 2)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        *(Inverted(*block) for block in blocks),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(80, CLASSES),
    )  # fmt: skip


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip


# Shape of an example, examples in an epoch, network.
NETWORKS = {
    "mlp": ((784,), 16384, lambda: nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, CLASSES))),
    "lenet": ((1, 28, 28), 4096, lenet),
    "mobilenet": ((3, 64, 64), 256, mobilenet),
    "gru": ((32, 32), 1024, Recurrent),
    "transformer": ((32, 64), 1024, Transformer),
}


def export(folder):
    for name, (shape, examples, network) in NETWORKS.items():
        torch.manual_seed(1)
        model = network().train()
        torch.onnx.export(
            model, (torch.zeros(2, *shape),), str(folder / f"{name}.onnx"), dynamo=False, opset_version=17, do_constant_folding=False,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "batch"}}, training=torch.onnx.TrainingMode.TRAINING,
        )  # fmt: skip
    print(json.dumps({name: {"shape": shape, "examples": examples} for name, (shape, examples, _) in NETWORKS.items()}))


def measure(name, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    shape, examples, network = NETWORKS[name]
    model = network().train()
    x = torch.sin(torch.arange(examples * torch.Size(shape).numel()) * 0.37).reshape(examples, *shape)
    y = torch.arange(examples) % CLASSES
    descent = torch.optim.SGD(model.parameters(), lr=0.01)
    best = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for rows in torch.randperm(examples).split(BATCH):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            descent.zero_grad()
            loss.backward()
            descent.step()
        best = max(best, examples / (time.perf_counter() - started))
    print(best)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    match sys.argv[1:]:
        case ["export", folder]:
            export(Path(folder))
        case ["time", name, threads]:
            measure(name, int(threads))
        case _:
            sys.exit(__doc__)
