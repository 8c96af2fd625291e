#!/usr/bin/env bash
# On the GPU host, as run.sh: the product's own suite on a card (tests/card), in pieces that resume.
#   benchmarks/device/run_card.sh SECONDS [options of pytest]      e.g. run_card.sh 570
# $OUT/card_suite.json then holds outcomes, figures, card, versions and commit. The next call of the same command
# goes on with what has not passed. It begins from nothing: the first call removes build/.
set -euo pipefail
seconds=$1; shift
began=$(date +%s)
. "$(dirname "$0")/setup.sh"
work=/tmp/card-suite
if [ ! -e "$work/results.json" ]; then
  mkdir -p "$work"
  rm -rf "$root/build"
  python -c 'import torch, diffusers, transformers, tensorrt_rtx'
fi
mkdir -p "${OUT:=/tmp/out}"
left=$((seconds - ($(date +%s) - began) - 10))
# Only this plugin: others of the host need libraries that setup.sh hides.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export INTAGLIO_CARD_RESULTS=$work/results.json INTAGLIO_CARD_PICTURE=$work/demo.png INTAGLIO_CARD_SECONDS=$((left - 60))
code=0
timeout -k 5 "$left" python -W ignore -m pytest -p pytest_timeout -rs --timeout=400 -p no:cacheprovider tests/card "$@" \
  > "$work/suite.log" 2>&1 || code=$?
tail -n 60 "$work/suite.log" | cut -c1-400
python -m benchmarks.device.card_results "$work/results.json" "$OUT/card_suite.json"
cp "$work/suite.log" "$OUT/"
[ ! -e "$work/demo.png" ] || cp "$work/demo.png" "$OUT/"
exit "$code"
