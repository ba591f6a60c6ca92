"""Scores a released bundle from the raw images with a foreign ONNX Runtime.

usage: score_release.py BUNDLE.tar.gz DIGITS.csv.gz FIRST_BLOCK LAST_BLOCK

Reads nothing of Sapwood's but the bundle: raw pixels 0..16 go through preprocess.onnx and model.onnx. Prints one JSON
object: the runtime's version, how many images were right, and how many there were.
"""

import gzip
import io
import json
import sys
import tarfile

import numpy as np
import onnxruntime as ort

# Where each form block begins; the same table as in data/README.md.
BLOCKS = [0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797]


def main(bundle, digits, first, last):
    rows = np.loadtxt(io.TextIOWrapper(gzip.open(digits)), delimiter=",", dtype=np.float32)
    rows = rows[BLOCKS[first - 1] : BLOCKS[last]]
    x, y = rows[:, :64].reshape(-1, 1, 8, 8), rows[:, 64].astype(np.int64)
    with tarfile.open(bundle) as tar:
        parts = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    for part in ("preprocess.onnx", "model.onnx"):
        if part in parts:
            session = ort.InferenceSession(parts[part], providers=["CPUExecutionProvider"])
            (x,) = session.run(None, {session.get_inputs()[0].name: x})
    right = int((x.argmax(axis=1) == y).sum())
    print(json.dumps({"onnxruntime": ort.__version__, "right": right, "examples": len(y)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
