#!/bin/sh
# Makes the environments of the packages that this project is compared with, under var/parity:
# v1 with TotalSegmentator 1.5.7, v2 with 2.18. torch comes first and stays as constraints.txt says.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
make_one() { # name, packages that are installed with torch, packages that are installed after it
    folder=var/parity/$1
    test -e "$folder/.done" && return
    test -x "$folder/bin/python" || "$python" -m venv "$folder"
    pip="$folder/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt"
    # shellcheck disable=SC2086 # lists of words
    $pip "torch==$(sed -n 's/^torch==//p' constraints.txt)" $2
    # shellcheck disable=SC2086
    $pip $2 $3
    touch "$folder/.done"
}
mkdir -p var/parity
make_one v1 'numpy<2' 'totalsegmentator==1.5.7 nnunet-customized==1.2 batchgenerators==0.21'
make_one v2 'nnunetv2==2.8.1' 'totalsegmentator==2.18.0'
# nnunetv2 brings a torchvision for CUDA, which does not load on a CPU's torch for this file alone.
: > "$(echo var/parity/v2/lib/python3*/site-packages/torchvision)/_meta_registrations.py"
