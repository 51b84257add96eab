#!/usr/bin/env bash
# Writes requirements.lock: everything that the image is built from, at one version, with the hashes of its files; and
# requirements-torch.lock: the versions of PyTorch, whose files (and hashes) differ between its CPU and CUDA indexes.
#   make lock
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv/bin} uv=${2:-uv}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# What PyTorch itself needs on any device is locked with the rest; its CUDA libraries it pins itself.
"$bin/python" - > "$work/wanted.in" <<'PYTHON'
import re, tomllib
from importlib.metadata import requires
wanted = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
wanted += [each for name in ("torch", "torchvision") for each in requires(name) if "extra ==" not in each]
left_out = re.compile(r"(torch|torchvision|triton|cuda-|nvidia-)")
print(*sorted({each for each in wanted if not left_out.match(each)}), sep="\n")
PYTHON
"$uv" pip compile "$work/wanted.in" --quiet --generate-hashes --no-annotate --no-header --no-emit-index-url \
    --no-emit-find-links --universal --python-version 3.11 > "$work/lock"
(echo "# Made by make lock from pyproject.toml; installed with --require-hashes."; cat "$work/lock") > requirements.lock
"$bin/python" - > requirements-torch.lock <<'PYTHON'
from importlib.metadata import version
print("# Made by make lock. No hashes: which index serves these decides the build (CPU, CUDA).")
for name in ("torch", "torchvision"):
    print(f"{name}=={version(name).partition('+')[0]}")
PYTHON
