#!/usr/bin/env bash
# Here: pack what a GPU host without a package index lacks, in parts of a size that can be sent.
#   benchmarks/device/pack.sh [FOLDER=bundle] [PART_MB=56]
# The host has Python 3.12 on x86-64, PyTorch and transformers. PRESET (6) and THREADS (1) are of xz.
# Writes FOLDER/part.00, part.01, ..., FOLDER/perf_analyzer.tar.xz and FOLDER/COMMIT. The parts are one xz tar
# of unpacked wheels, without what only other Pythons need.
set -euo pipefail
out=${1:-bundle} part_mb=${2:-56}
root=$(cd "$(dirname "$0")/../.." && pwd)
site=$(mktemp -d) wheels=$(mktemp -d)
trap 'rm -rf "$site" "$wheels"' EXIT
mkdir -p "$out"

# The host has torch, triton, cuda-bindings, onnx, onnxruntime, accelerate, safetensors, typer, rich, psutil,
# grpcio, protobuf and the like.
requirements=(
  tensorrt-rtx-cu12-libs==1.6.1.120 tensorrt-rtx-cu12-bindings==1.6.1.120
  nvidia-pytriton==0.7.0 tritonclient==2.73.0 python-rapidjson==1.25
  numpy==1.26.4 diffusers==0.36.0 transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2
  peft==0.21.2 importlib_metadata==10.2.0
  pydantic==2.14.3 pydantic_core==2.50.4 annotated_types==0.8.0 typing_inspection==0.4.5
)
pip=("${PYTHON:-python3}" -m pip)
wheels_only=(--quiet --disable-pip-version-check --no-deps)
platforms=()
for number in 39 38 35 34 31 28 27 17; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any)
for requirement in "${requirements[@]}"; do
  "${pip[@]}" download "${wheels_only[@]}" --only-binary=:all: --dest "$wheels" \
    --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    "${platforms[@]}" "$requirement" 2> "$wheels/pip.log" || { cat "$wheels/pip.log" >&2; exit 1; }
  echo "have $requirement"
done
# The module itself is only published as a source package, of pure Python.
"${pip[@]}" wheel "${wheels_only[@]}" --wheel-dir "$wheels" tensorrt-rtx-cu12==1.6.1.120
for wheel in "$wheels"/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$site"; done

# Of Triton only what Python 3.12 needs; of the others no tests and no sources of extensions.
find "$site/pytriton/tritonserver/python_backend_stubs" -mindepth 1 -maxdepth 1 ! -name 3.12 -exec rm -rf {} +
rm -rf "$site"/nvidia_pytriton.libs/libpython3-*.13.so* "$site"/*.libs/libpython3.1[013]*
rm -rf "$site"/numpy/*/tests "$site"/diffusers/utils/dummy_*onnx*

# The command's entry points; the packages themselves are the checkout's.
"${PYTHON:-python3}" - "$root/pyproject.toml" "$site" <<'PYTHON'
import sys, tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
info = Path(sys.argv[2]) / f"intaglio-{project['version']}.dist-info"
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: intaglio\nVersion: {project['version']}\n")
lines = []
for group, entries in {"console_scripts": project["scripts"], **project["entry-points"]}.items():
    lines.append(f"[{group}]")
    lines += [f"{name} = {target}" for name, target in entries.items()]
(info / "entry_points.txt").write_text("\n".join(lines) + "\n")
PYTHON

rm -f "$out"/part.*
tar cf - -C "$site" . \
  | xz --x86 --lzma2=preset="${PRESET:-6}" --threads="${THREADS:-1}" \
  | split -d -b "${part_mb}M" - "$out/part."
"$root/benchmarks/device/pack_perf_analyzer.sh" "$out"
git -C "$root" rev-parse HEAD > "$out/COMMIT"
ls -l "$out"
