#!/usr/bin/env bash
# On the GPU host, as run.sh: the same build on one card and on all of them.
#   benchmarks/device/run_gpus.sh SECONDS NAME [options of benchmarks.gpus.run]      e.g. run_gpus.sh 570 h200_gpus
# A build that run.sh made on this machine is used. The next call of the same command goes on with what is
# missing.
set -euo pipefail
seconds=$1 name=$2; shift 2
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
work=/tmp/benchmark
left=$((seconds - ($(date +%s) - began) - 15))
mkdir -p "${OUT:=/tmp/out}" "$work"
code=0
python -W ignore -m benchmarks.gpus.run configs/sdxl-seeded.yaml \
  --out "$OUT/$name.json" --work "$work" --seconds "$left" "$@" || code=$?
for log in "$root"/build/*-gpus-*/triton.log; do
  [ ! -e "$log" ] || cp "$log" "$work/$(basename "$(dirname "$log")")-triton.log"
done
(cd "$work" && tar czf "$OUT/$name-logs.tar.gz" --ignore-failed-read ./*.log ./*.json configs) 2>/dev/null || true
for log in "$work"/build.log "$work"/served_[0-9]*.log; do echo "== $log"; tail -n 6 "$log" || true; done
exit "$code"
