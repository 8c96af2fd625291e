#!/usr/bin/env bash
# On the GPU host, after run.sh has done its part `build`: `intaglio bench` on a server of that build.
#   benchmarks/device/run_serving.sh SECONDS NAME [WORKLOAD]      e.g. run_serving.sh 270 h200_serving
# $OUT/NAME/report.json is written after each load; it becomes $OUT/NAME.json, with page and plots, at the end.
# The next call of the same command goes on with the loads that are missing. WORK (/tmp/benchmark) is the work
# folder of run.sh.
set -euo pipefail
seconds=$1 name=$2 workload=${3:-benchmarks/workloads/h200.yaml}
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
work=${WORK:-/tmp/benchmark} kept=/tmp/serving-benchmark/loads tool=/tmp/perf_analyzer
if [ ! -e "$tool/bin/perf_analyzer" ]; then
  packed=/tmp/bundle/perf_analyzer.tar.xz
  [ -e "$packed" ] || { echo "run_serving.sh: no $packed: receive.sh brings it" >&2; exit 1; }
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall("/tmp", filter="tar")' "$packed"
fi
configs=("$work"/configs/*-first-size.yaml)
if [ ! -e "${configs[0]}" ]; then
  echo "run_serving.sh: no build of $work: run.sh SECONDS NAME --parts build makes one" >&2
  exit 1
fi
folder=${OUT:=/tmp/out}/$name
mkdir -p "$folder" "$kept"
ln -sfn "$kept" "$folder/loads"  # $OUT is empty at each call, and what was measured is there again
left=$((seconds - ($(date +%s) - began) - 15))
code=0
# bench begins no load that would not be over in time; this limit ends it where the server hangs.
timeout --signal=TERM -k 10 $((left + 5)) python -W ignore -m intaglio bench "$workload" \
  --config "${configs[0]}" --perf-analyzer "$tool" --out "$folder" --seconds "$left" --no-plots || code=$?
tar czf "$OUT/$name-loads.tar.gz" -C "$kept" --exclude='*.export.json' .
rm "$folder/loads"
if [ -e "$folder/report.json" ]; then
  mv "$folder/report.json" "$OUT/$name.json"
  rm -r "$folder"
  # The host's matplotlib may not fit the numpy that setup.sh puts first; the same command draws elsewhere.
  python -W ignore -m benchmarks.serving.report "$OUT/$name.json" || echo "no page of all loads yet"
fi
exit "$code"
