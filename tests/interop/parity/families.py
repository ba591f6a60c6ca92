"""The families: a network of each, what it learns, and how. Small enough for minutes on a CPU."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .data import CHANNELS, KINDS, VOCABULARY, WORDS

IMAGE_CLASSES, SPEAKERS = 10, 9


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, IMAGE_CLASSES))


def lenet():
    """LeCun et al. 1998, with ReLU and maxima."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, IMAGE_CLASSES),
    )  # fmt: skip


def convolution(read, written, kernel, stride=1, groups=1, activation=None):
    layers = [nn.Conv2d(read, written, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(written)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Residual(nn.Module):
    """The basic block of ResNet (He et al. 2016)."""

    def __init__(self, read, written, stride):
        super().__init__()
        self.body = nn.Sequential(convolution(read, written, 3, stride, activation=nn.ReLU), convolution(written, written, 3))
        self.skip = nn.Identity() if stride == 1 and read == written else convolution(read, written, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def pooled(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, IMAGE_CLASSES))


def resnet():
    blocks = [Residual(12, 12, 1), Residual(12, 24, 2), Residual(24, 48, 2)]
    return nn.Sequential(convolution(1, 12, 3, 2, activation=nn.ReLU), *blocks, pooled(48))


class Squeeze(nn.Module):
    """Squeeze and excitation as MobileNetV3 has it."""

    def __init__(self, channels):
        super().__init__()
        narrow = channels // 4
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x):
        return x * self.weigh(x)


class Inverted(nn.Module):
    """The block of MobileNetV2 (Sandler et al. 2018), and with `squeeze` that of V3 (Howard et al. 2019)."""

    def __init__(self, read, written, kernel, stride, activation, squeeze):
        super().__init__()
        wide = 3 * read
        self.same = stride == 1 and read == written
        self.body = nn.Sequential(
            convolution(read, wide, 1, activation=activation),
            convolution(wide, wide, kernel, stride, groups=wide, activation=activation),
            *([Squeeze(wide)] if squeeze else []),
            convolution(wide, written, 1),
        )

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


def mobilenet_v2():
    blocks = [Inverted(*block, 3, stride, nn.ReLU6, False) for *block, stride in ((12, 12, 1), (12, 20, 2), (20, 20, 1), (20, 32, 2))]
    return nn.Sequential(convolution(1, 12, 3, 2, activation=nn.ReLU6), *blocks, pooled(32))


def mobilenet_v3():
    blocks = [Inverted(*block, 5, stride, nn.Hardswish, True) for *block, stride in ((12, 12, 1), (12, 20, 2), (20, 32, 2))]
    return nn.Sequential(convolution(1, 12, 3, 2, activation=nn.Hardswish), *blocks, pooled(32))


class Lstm(nn.Module):
    """Reads the state at the last step that is no padding."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(CHANNELS, 32, batch_first=True), nn.Linear(32, SPEAKERS)

    def forward(self, x):
        last = (x.abs().sum(2) > 0).long().sum(1) - 1
        states = self.layer(x)[0]
        return self.head(states.gather(1, last[:, None, None].expand(-1, 1, 32)).squeeze(1))


class Gru(nn.Module):
    """In both directions; reads the mean of the states over the steps that are no padding."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(CHANNELS, 24, batch_first=True, bidirectional=True), nn.Linear(48, SPEAKERS)

    def forward(self, x):
        read = (x.abs().sum(2, keepdim=True) > 0).float()
        return self.head((self.layer(x)[0] * read).sum(1) / read.sum(1))


class GruLengths(nn.Module):
    """Is told how long each sequence is."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(CHANNELS, 32, batch_first=True), nn.Linear(32, SPEAKERS)

    def forward(self, x, lengths):
        states = self.layer(x)[0]
        return self.head(states.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, 32)).squeeze(1))


class Transformer(nn.Module):
    """An encoder over words, of which 0 is padding, and the mean of what it makes of the others."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, 32), nn.Parameter(torch.randn(WORDS, 32) / 8)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.head = nn.Linear(32, len(KINDS))

    def forward(self, x):
        padding = x == 0
        encoded = self.encoder(self.words(x) + self.places, src_key_padding_mask=padding)
        read = (~padding).unsqueeze(-1).float()
        return self.head((encoded * read).sum(1) / read.sum(1))


@dataclass(frozen=True)
class Family:
    build: Callable[[], nn.Module]
    data: str
    optimizer: str
    # Epochs and learning rate; the optimizer starts afresh in each stage.
    stages: tuple[tuple[int, float], ...]
    batch: int
    # The accuracy that PyTorch has at least; a comparison of what nobody learned would say nothing.
    least: float
    # The legacy exporter writes opset 13 to 20, the other 18 to 21. One after another, by seed.
    legacy: tuple[int, ...] = (13, 14, 15, 17, 20)
    dynamo: tuple[int, ...] = (18, 19, 20, 21)
    # Orders of the examples that each seed is the mean of.
    draws: int = 1


FAMILIES = {
    "mlp": Family(mlp, "fashion", "adam", ((8, 0.001), (2, 0.0001)), 64, 0.8),
    "lenet": Family(lenet, "fashion", "adam", ((6, 0.003), (1, 0.0003)), 64, 0.8),
    "resnet": Family(resnet, "fashion", "sgd", ((3, 0.05), (1, 0.005)), 64, 0.8),
    "mobilenet-v2": Family(mobilenet_v2, "fashion", "adam", ((3, 0.003), (1, 0.0003)), 64, 0.8),
    "mobilenet-v3": Family(mobilenet_v3, "fashion", "adamw", ((3, 0.003), (1, 0.0003)), 64, 0.8),
    # Its loss has spikes, which amplify the last bits: PyTorch in float64 ended 0.8 points from PyTorch in float32.
    "lstm": Family(Lstm, "vowels", "adam", ((30, 0.003), (10, 0.0003)), 16, 0.9, draws=4),
    "gru": Family(Gru, "vowels", "adam", ((20, 0.003), (5, 0.0003)), 16, 0.9),
    # PyTorch cannot write its attention below opset 14.
    "transformer": Family(Transformer, "plays", "adam", ((4, 0.002), (1, 0.0002)), 64, 0.7, legacy=(14, 15, 16, 17, 20)),
    "gru-lengths": Family(GruLengths, "vowels-lengths", "adam", ((30, 0.003), (10, 0.0003)), 16, 0.9),
}
