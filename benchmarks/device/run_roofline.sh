#!/usr/bin/env bash
# On the GPU host, after run.sh has done its part `build`: `intaglio bench roofline` of that build.
#   benchmarks/device/run_roofline.sh SECONDS NAME      e.g. run_roofline.sh 270 h200_roofline
# It writes $OUT/NAME.json. WORK (/tmp/benchmark) is the work folder of run.sh.
set -euo pipefail
seconds=$1 name=$2
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
work=${WORK:-/tmp/benchmark} folder=/tmp/roofline
configs=("$work"/configs/*-first-size.yaml)
if [ ! -e "${configs[0]}" ]; then
  echo "run_roofline.sh: no build of $work: run.sh SECONDS NAME --parts build makes one" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "${OUT:=/tmp/out}"
left=$((seconds - ($(date +%s) - began)))
code=0
timeout --signal=TERM -k 10 "$left" python -W ignore -m intaglio bench roofline "${configs[0]}" --out "$folder" || code=$?
if [ -e "$folder/roofline.json" ]; then
  # The host's matplotlib may not fit the numpy that setup.sh puts first; the same command draws elsewhere.
  [ "$code" = 0 ] || echo "measured, and not drawn: exit $code"
  cp "$folder/roofline.json" "$OUT/$name.json"
  code=0
fi
exit "$code"
