#!/usr/bin/env bash
# On the GPU host, once all parts of the bundle are in /tmp/bundle: unpack (once), then measure for SECONDS.
#   benchmarks/device/run.sh SECONDS NAME [options of benchmarks.speed.run]      e.g. run.sh 570 h200
# What is done comes back in $OUT. The next call of the same command goes on with what is missing.
# CUDA_VISIBLE_DEVICES chooses the card where there are several.
set -euo pipefail
seconds=$1 name=$2; shift 2
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
python - <<'PYTHON'
import numpy, torch, tensorrt_rtx, diffusers, transformers

print("numpy", numpy.__version__, "torch", torch.__version__, "TensorRT-RTX", tensorrt_rtx.__version__)
print(torch.cuda.get_device_name(0))
PYTHON
python -m intaglio doctor --memory configs/sdxl-seeded.yaml || true
left=$((seconds - ($(date +%s) - began) - 15))
mkdir -p "${OUT:=/tmp/out}"
code=0
python -W ignore -m benchmarks.speed.run configs/sdxl-seeded.yaml \
  --out "$OUT/$name.json" --work /tmp/benchmark --seconds "$left" "$@" || code=$?
mkdir -p /tmp/benchmark/triton
for log in "$root"/build/*/triton.log; do
  [ ! -e "$log" ] || cp "$log" "/tmp/benchmark/triton/$(basename "$(dirname "$log")").log"
done
# tar's code 1: another card's run was writing one of them.
tar czf "$OUT/logs.tar.gz" -C /tmp/benchmark --exclude='*.npy' --exclude=./variants --exclude=./batches . || [ $? = 1 ]
for log in /tmp/benchmark/*.log; do echo "== $log"; tail -n 4 "$log"; done
python -m benchmarks.speed.report "$OUT/$name.json" || true
exit "$code"
