#!/usr/bin/env bash
# On the GPU host, as run.sh: what changing LoRAs costs.
#   CUDA_VISIBLE_DEVICES=1 benchmarks/device/run_lora.sh SECONDS NAME [options of benchmarks.loras.run]
#   e.g. run_lora.sh 570 h200_lora
# It may run beside run.sh, on another card: its builds lie in its own work folder. The next call of the same
# command goes on with what is missing.
set -euo pipefail
seconds=$1 name=$2; shift 2
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
work=/tmp/lora-benchmark
python - <<'PYTHON'
import torch, tensorrt_rtx, intaglio

print("TensorRT-RTX", tensorrt_rtx.__version__, torch.cuda.get_device_name(0), intaglio.__file__)
PYTHON
left=$((seconds - ($(date +%s) - began) - 15))
mkdir -p "${OUT:=/tmp/out}" "$work"
code=0
python -W ignore -m benchmarks.loras.run configs/sdxl-seeded.yaml \
  --out "$OUT/$name.json" --work "$work" --seconds "$left" "$@" || code=$?
find "$work/build" -name 'triton*.log' -exec cp {} "$work/" \; 2>/dev/null || true
logs=$OUT/$name-logs.tar.gz
(cd "$work" && tar czf "$logs" --ignore-failed-read ./*.log ./*.json configs) 2>/dev/null || true
for log in "$work"/*.log; do echo "== $log"; tail -n 6 "$log"; done
exit "$code"
