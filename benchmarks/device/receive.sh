#!/usr/bin/env bash
# On the GPU host: keep the parts that came with this call. The copy of the working tree may not outlive it.
#   benchmarks/device/receive.sh bundle
set -euo pipefail
mkdir -p /tmp/bundle
for file in "$1"/part.* "$1"/*.whl "$1"/*.tar.xz "$1"/COMMIT; do
  [ ! -e "$file" ] || cp -v "$file" /tmp/bundle/
done
