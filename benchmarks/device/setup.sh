# On the GPU host, read by run.sh and run_lora.sh: unpack what pack.sh packed (once, also where both begin at the same time), set the paths.
#   . benchmarks/device/setup.sh      gives $root, $INTAGLIO_COMMIT and the environment's python first on PATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
(
  flock 9
  [ ! -e /tmp/venv/.whole ] || exit 0
  rm -rf /tmp/site /tmp/venv
  mkdir -p /tmp/site
  cat /tmp/bundle/part.* | python3 -c 'import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall("/tmp/site", filter="fully_trusted")'
  for wheel in /tmp/bundle/*.whl; do [ ! -e "$wheel" ] || python3 -m zipfile -e "$wheel" /tmp/site; done
  # Triton's stub takes its packages from the environment whose bin is first on PATH. Ours come before the host's: numpy must be below 2.
  there=$(python3 -c 'import site; print(site.getsitepackages()[0])')
  python3 -m venv --without-pip /tmp/venv
  own=$(/tmp/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')
  printf '%s\n' "$root" "$root/runtime" "$root/export" "$root/client" "$root/training" /tmp/site "$there" > "$own/rooms.pth"
  chmod +x /tmp/site/pytriton/tritonserver/bin/tritonserver /tmp/site/pytriton/tritonserver/python_backend_stubs/3.12/*
  touch /tmp/venv/.whole
) 9> /tmp/intaglio-setup.lock
INTAGLIO_COMMIT=${INTAGLIO_COMMIT:-$(cat /tmp/bundle/COMMIT)}
export INTAGLIO_COMMIT PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PATH=/tmp/venv/bin:$PATH
cd "$root"
