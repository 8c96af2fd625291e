#!/usr/bin/env bash
# Here: pack the perf_analyzer that run_serving.sh needs, as FOLDER/perf_analyzer.tar.xz. pack.sh calls it.
#   benchmarks/device/pack_perf_analyzer.sh [FOLDER=bundle]
# The host has zlib, OpenSSL 3 and libstdc++; the packaged Triton there brings libb64. The CUDA runtime goes
# along: that of the host's PyTorch may be of another major version. 4.4 MB.
set -euo pipefail
out=${1:-bundle}
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
mkdir -p "$out"
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --target "$tool/all" \
  tritonclient==2.45.0 nvidia-cuda-runtime-cu12==12.9.79
cuda=nvidia/cuda_runtime/lib
mkdir -p "$tool/perf_analyzer/bin" "$tool/perf_analyzer/$cuda"
cp "$tool/all/bin/perf_analyzer" "$tool/perf_analyzer/bin/"
cp "$tool/all/$cuda"/libcudart.so.12 "$tool/perf_analyzer/$cuda/"
tar cf - -C "$tool" perf_analyzer | xz -6 > "$out/perf_analyzer.tar.xz"
ls -l "$out/perf_analyzer.tar.xz"
