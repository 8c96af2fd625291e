"""Machines that lack what these tests need: `.ci/run` and the tests say so, and go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .tools import REQUIRED, ROOT, program

DEBIAN = ("buildah", "crun", "debootstrap", "faketime", "promtool")
NEEDED = ("bash", "dirname", "env", "grep", "id", "mktemp", "rm", "tail", "tee", "timeout")
MAKE = f"""#!/bin/sh
echo "$1 ${{{REQUIRED}:-}}" >> "$MADE"
echo "1 passed in 0.01s"
[ "$1" != "$FAILING" ]
"""
"""In the place of make: it writes down what it was asked for."""


def ci_run(folder: Path, *, programs: tuple[str, ...] = (), failing: str = "") -> tuple[int, list[str], str]:
    """Exit code and output of `.ci/run` where only `programs` are installed, and what it made."""
    for name in NEEDED:
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in {"make": MAKE, **dict.fromkeys(programs, "#!/bin/sh\nexit 100\n")}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    made = folder / "made"
    environment = {"PATH": str(folder), "MADE": str(made), "FAILING": failing}
    done = subprocess.run(
        [ROOT / ".ci/run"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.splitlines(), made.read_text()


@pytest.mark.parametrize("programs", [(), ("apt-get",), ("buildah", "crun", "apt-get")])
def test_ci_goes_on_where_debians_packages_cannot_be_installed(
    tmp_path: Path, programs: tuple[str, ...]
) -> None:
    code, lines, made = ci_run(tmp_path, programs=programs)
    assert code == 0
    assert lines[0].startswith(
        "not installed: buildah crun debootstrap faketime prometheus; the tests that need them"
    )
    assert lines[-4:] == ["1 passed in 0.01s"] * 4
    assert made == "audit \ntest \ntest-fresh \ntest-long \nship-check \n"


def test_ci_allows_no_missing_program_where_they_are_installed(tmp_path: Path) -> None:
    code, lines, made = ci_run(tmp_path, programs=DEBIAN)
    assert code == 0
    assert not any("not installed" in line for line in lines)
    assert made.splitlines()[-1] == "ship-check 1"


@pytest.mark.parametrize("failing", ["audit", "test", "test-long", "ship-check"])
def test_ci_fails_where_a_target_fails(tmp_path: Path, failing: str) -> None:
    code, _, made = ci_run(tmp_path, failing=failing)
    assert code == 1
    assert len(made.splitlines()) == 5, "the other targets are made all the same"


@pytest.mark.ship
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up capabilities")
def test_containers_are_skipped_on_a_machine_that_allows_none() -> None:
    """Even where no program may be missing: no change of the repository would help."""
    text = "from tests.docker.tools import need_containers; need_containers()"
    weak = [program("setpriv", "Debian's util-linux"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = subprocess.run(
        [*weak, sys.executable, "-c", text],
        cwd=ROOT,
        env={**os.environ, REQUIRED: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Skipped: this machine allows no containers: unshare" in done.stderr
