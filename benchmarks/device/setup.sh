# On the GPU host, sourced by run.sh and run_lora.sh: unpack what pack.sh packed, set the paths.
#   . benchmarks/device/setup.sh      gives $root, $INTAGLIO_COMMIT and the environment's python first on PATH
# It unpacks once, also where both scripts begin at the same time.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
(
  flock 9
  [ ! -e /tmp/venv/.whole ] || exit 0
  ls /tmp/bundle/part.* > /dev/null 2>&1 || { echo "setup.sh: no parts in /tmp/bundle: receive.sh brings them" >&2; exit 1; }
  rm -rf /tmp/site /tmp/venv
  mkdir -p /tmp/site
  unpack='import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall("/tmp/site", filter="fully_trusted")'
  cat /tmp/bundle/part.* | python3 -c "$unpack"
  for wheel in /tmp/bundle/*.whl; do [ ! -e "$wheel" ] || python3 -m zipfile -e "$wheel" /tmp/site; done
  # Triton's stub takes its packages from the environment whose bin is first on PATH. Ours come before the
  # host's: numpy must be below 2.
  there=$(python3 -c 'import site; print(site.getsitepackages()[0])')
  python3 -m venv --without-pip /tmp/venv
  own=$(/tmp/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')
  # The host's SciPy, JAX and others are made for numpy 2; diffusers and transformers work without them.
  cat > "$own/hidden_packages.py" <<'PYTHON'
import sys
from importlib.machinery import PathFinder


HIDDEN = {"scipy", "sklearn", "pandas", "jax", "jaxlib", "flax", "optax", "orbax", "numba", "cupy"}


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
PYTHON
  rooms=("$root" "$root/runtime" "$root/export" "$root/client" "$root/training")
  printf '%s\n' "import hidden_packages" "${rooms[@]}" /tmp/site "$there" > "$own/rooms.pth"
  triton=/tmp/site/pytriton/tritonserver
  chmod +x "$triton/bin/tritonserver" "$triton"/python_backend_stubs/3.12/*
  touch /tmp/venv/.whole
) 9> /tmp/intaglio-setup.lock || exit 1
INTAGLIO_COMMIT=${INTAGLIO_COMMIT:-$(cat /tmp/bundle/COMMIT)}
export INTAGLIO_COMMIT PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PATH=/tmp/venv/bin:$PATH
# torch starts a thread a core whatever else runs: with 64 threads in each of four jobs, all of them wait.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
cd "$root"
