"""Trains small networks in PyTorch and writes what `models/tests/torch.rs` compares with: the graphs, as both exporters write them
before the first step, and the losses. Data are numbers that both sides compute.

    pip install torch onnxscript onnx && python tests/interop/torch_curves.py tests/interop/torch
"""

import copy
import json
import sys
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

EXAMPLES, CLASSES, STEPS, TOKENS = 48, 5, 60, 12


def examples(shape, tokens):
    """The same on any machine. With m = (k · 7919) mod 1000, thousandths (m - 500) / 250, or tokens 1 + m mod 11 and zeros behind
    the first 3 + i mod 6. Labels (7·i + i div 3) mod 5."""
    count = EXAMPLES * torch.Size(shape).numel()
    rows = torch.arange(EXAMPLES)
    labels = (7 * rows + rows // 3) % CLASSES
    x = (torch.arange(count) * 7919 % 1000).reshape(EXAMPLES, *shape)
    if tokens:
        return torch.where(torch.arange(shape[0]) < 3 + rows[:, None] % 6, 1 + x % (TOKENS - 1), 0), labels
    return ((x - 500).double() / 250).float(), labels


class Recurrent(nn.Module):
    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Text(nn.Module):
    """Reads tokens (int64), of which 0 is padding."""

    def __init__(self, length):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, 16), nn.Parameter(torch.randn(length, 16) / 4)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        padding = x == 0
        encoded = self.encoder(self.tokens(x) + self.places, src_key_padding_mask=padding)
        read = (~padding).unsqueeze(-1).float()
        return self.head((encoded * read).sum(1) / read.sum(1))


def networks():
    """Name, shape of an example, optimizer, and a network whose start is always the same."""
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    adam = lambda lr: lambda parameters: torch.optim.Adam(parameters, lr=lr)
    cnn = lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=2), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    for name, shape, optimizer, network in (
        ("mlp", (20,), sgd, lambda: nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, CLASSES))),
        ("cnn", (1, 8, 8), sgd, cnn),
        ("lstm", (7, 6), adam(0.01), lambda: Recurrent(nn.LSTM(6, 12, batch_first=True), 12)),
        ("gru", (7, 6), adam(0.01), lambda: Recurrent(nn.GRU(6, 8, batch_first=True, bidirectional=True), 16)),
        # Slowly, or the last bits of a float decide where Adam goes.
        ("transformer", (6, 16), adam(0.003), Transformer),
        ("text", (8,), adam(0.003), lambda: Text(8)),
    ):
        torch.manual_seed(1)
        yield name, shape, optimizer, network()


def export(network, x, path, dynamo):
    more = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "optimize": False, "external_data": False, "opset_version": 20}
    if not dynamo:
        more = {"dynamic_axes": {"x": {0: "batch"}}, "opset_version": 17, "do_constant_folding": False}
        more["training"] = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(network, (x,), path, dynamo=dynamo, input_names=["x"], output_names=["y"], verbose=False, **more)
    model = onnx.load(path)
    for node in model.graph.node:  # where in the source a node comes from
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    onnx.save(model, path)


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    curves = {}
    for name, shape, optimizer, network in networks():
        x, y = examples(shape, tokens=name == "text")
        network.train()
        export(copy.deepcopy(network), x, str(folder / f"{name}-legacy.onnx"), dynamo=False)
        export(copy.deepcopy(network), x, str(folder / f"{name}-dynamo.onnx"), dynamo=True)
        network.train()
        descent, losses = optimizer(network.parameters()), []
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(network(x), y)
            descent.zero_grad()
            loss.backward()
            descent.step()
            losses.append(loss.item())
        network.eval()
        with torch.no_grad():
            evaluated = nn.functional.cross_entropy(network(x), y).item()
        parameters = sum(parameter.numel() for parameter in network.parameters())
        curves[name] = {"shape": list(shape), "tokens": name == "text", "parameters": parameters, "losses": losses, "evaluated": evaluated}
        print(name, losses[0], losses[-1], evaluated)
    (folder / "curves.json").write_text(json.dumps({"torch": torch.__version__.split("+")[0], **curves}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
