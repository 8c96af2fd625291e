"""Where `tritonserver` is and what it needs to start.

It is either on PATH, as in an NGC image where everything is in place, or inside the package nvidia-pytriton,
which the extra `triton` installs.
The packaged one is old (Triton 2.51) and meant for this machine's loopback only.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from intaglio.errors import ConfigError, MissingExtra, Unavailable

__all__ = ["TritonInstallation", "find_triton", "has_package", "libpython_folder"]

_STUB: Final = "triton_python_backend_stub"
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_UNPACKAGED_PYTHON: Final = (3, 13)
"""The first Python without a wheel of the numpy that the packaged Triton needs."""
_HELP_SECONDS: Final = 30


@dataclass(frozen=True)
class TritonInstallation:
    """One `tritonserver`; `package` is the folder that it was unpacked to, None for one on PATH."""

    binary: Path
    package: Path | None = None

    @property
    def origin(self) -> Literal["PATH", "nvidia-pytriton"]:
        """Where it comes from."""
        return "PATH" if self.package is None else "nvidia-pytriton"

    @property
    def stub(self) -> Path | None:
        """The packaged stub for this interpreter's version; None for one on PATH, which brings its own."""
        return None if self.package is None else self.package / "python_backend_stubs" / _PYTHON / _STUB

    @cached_property
    def options(self) -> str:
        """The text of `tritonserver --help`, since releases differ in their options.

        Raises:
            Unavailable: it does not end in time.
        """
        try:
            done = subprocess.run(
                [self.binary, "--help"],
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=_HELP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{self.binary} --help has not ended after {_HELP_SECONDS} s") from error
        return done.stdout + done.stderr

    def check(self) -> None:
        """Check that it can run Python models here.

        Raises:
            ConfigError: no stub or no shared libpython for this interpreter, or a numpy that the stub cannot
                use.
        """
        if self.package is None:
            return
        if self.stub is None or not self.stub.is_file():
            stubs = (self.package / "python_backend_stubs").glob("3.*")
            have = ", ".join(sorted(path.name for path in stubs))
            raise ConfigError(f"the packaged Triton has no stub for Python {_PYTHON}; it has {have}")
        if libpython_folder() is None:
            raise ConfigError(
                f"the packaged Triton needs libpython{_PYTHON}.so.1.0, which this interpreter lacks; "
                f"apt install libpython{_PYTHON}, or a Python built with --enable-shared"
            )
        # WAR: the stub of nvidia-pytriton 0.7.0 crashes on strings with numpy 2, and floats arrive empty.
        try:
            numpy = version("numpy")
        except PackageNotFoundError:
            raise MissingExtra("numpy", extra="triton") from None
        if int(numpy.partition(".")[0]) >= 2:
            raise ConfigError(f"numpy {numpy} crashes the packaged Triton's stub; pip install 'numpy<2'")

    def environment(self) -> dict[str, str]:
        """The environment that Triton starts in.

        The stub's interpreter ignores PYTHONPATH: its packages are those of the virtual environment whose
        `bin` is first on PATH.
        """
        values = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
        }
        if self.package is None:
            return values
        libraries = [libpython_folder(), self.package.parent.parent / "nvidia_pytriton.libs"]
        known = [str(folder) for folder in libraries if folder is not None]
        known += values.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        values["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, known))
        values["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), values.get("PATH", os.defpath)])
        return values

    def make_backend_folder(self, folder: Path) -> Path | None:
        """Make links in `folder` that put the stub beside its library, where the backend looks for it; None
        for a `tritonserver` on PATH.
        """
        if self.package is None or self.stub is None:
            return None
        python = folder / "backends" / "python"
        python.mkdir(parents=True, exist_ok=True)
        source = self.package / "backends" / "python"
        for target in (source / "libtriton_python.so", source / "triton_python_backend_utils.py", self.stub):
            link = python / target.name
            if not link.is_symlink():  # after a restart they are there
                link.symlink_to(target)
        return python.parent


def find_triton() -> TritonInstallation:
    """`tritonserver` on PATH, else the packaged one.

    Raises:
        MissingExtra: there is neither.
        ConfigError: there is neither, and the extra has none for this machine.
    """
    if found := shutil.which("tritonserver"):
        return TritonInstallation(Path(found))
    package = find_spec("pytriton")
    for folder in (package.submodule_search_locations or ()) if package else ():
        binary = Path(folder) / "tritonserver" / "bin" / "tritonserver"
        if binary.is_file():
            return TritonInstallation(binary, binary.parent.parent)
    machine = platform.machine()
    if not has_package(sys.version_info[:2], machine):
        raise ConfigError(
            f"tritonserver is not on PATH, and none is packaged for Python {_PYTHON} on {machine}; "
            "serve in NVIDIA's Triton image, or with Python 3.11 or 3.12 on x86-64"
        )
    raise MissingExtra("tritonserver", extra="triton")


def has_package(python: tuple[int, int], machine: str) -> bool:
    """Whether the extra `triton` brings a `tritonserver` for this Python and machine.

    The markers in pyproject.toml say the same.
    """
    return python < _UNPACKAGED_PYTHON and machine == "x86_64"


def libpython_folder() -> Path | None:
    """Folder of this interpreter's shared library; None where there is none."""
    name = f"libpython{_PYTHON}.so.1.0"
    config = sysconfig.get_config_vars()
    libraries = Path(config.get("LIBDIR") or "/usr/lib")
    architecture = config.get("MULTIARCH") or ""
    folders = [
        Path(sys.base_prefix) / "lib",
        libraries,
        libraries / architecture,
        Path("/usr/lib") / architecture,
    ]
    for folder in folders:
        if (folder / name).is_file():
            return folder
    return None
