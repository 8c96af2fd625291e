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


def ci_run(
    folder: Path, *, programs: tuple[str, ...] = (), failing: str = "", apt: str = ""
) -> tuple[int, list[str], str]:
    """Exit code and output of `.ci/run` where only `programs` are installed, and what it made."""
    for name in NEEDED:
        (folder / name).symlink_to(str(shutil.which(name)))
    texts = {"make": MAKE, **dict.fromkeys(programs, "#!/bin/sh\nexit 100\n")}
    if apt:
        texts["apt-get"] = apt
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    made = folder / "made"
    environment = {"PATH": str(folder), "MADE": str(made), "FAILING": failing}
    done = subprocess.run(
        [ROOT / ".ci/run"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.splitlines(), made.read_text()


def has_not(*programs: str) -> tuple[str, str]:
    """What `.ci/run` says is missing where only `programs` are installed, and what it requires."""
    here = {name for name in DEBIAN if Path("/usr/sbin", name).exists()} | set(
        programs
    )  # .ci/run looks there
    packages = {"prometheus" if name == "promtool" else name: name in here for name in DEBIAN}
    missing = " ".join(name for name, found in packages.items() if not found)
    return missing, " ".join(["ship", *(name for name, found in packages.items() if found)])


@pytest.mark.parametrize(
    "programs",
    [(), ("apt-get",), ("buildah", "crun", "apt-get"), ("buildah", "crun", "debootstrap", "promtool")],
    ids=lambda programs: " ".join(programs) or "nothing",
)
def test_ci_goes_on_where_debians_packages_cannot_be_installed(
    tmp_path: Path, programs: tuple[str, ...]
) -> None:
    missing, required = has_not(*programs)
    code, lines, made = ci_run(tmp_path, programs=programs)
    assert code == 0
    assert lines[0] == f"not installed: {missing}; the tests that need them are skipped"
    assert lines[-4:] == ["1 passed in 0.01s"] * 4
    targets = ("audit", "test", "test-fresh", "test-long", "ship-check")
    assert made.splitlines() == [f"{target} {required}" for target in targets]


def test_ci_without_faketime_alone_still_requires_the_others(tmp_path: Path) -> None:
    _, lines, made = ci_run(tmp_path, programs=("buildah", "crun", "debootstrap", "promtool"))
    assert lines[0].startswith("not installed: faketime; ")
    assert made.splitlines()[-1] == "ship-check ship buildah crun debootstrap prometheus"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_ci_installs_what_is_missing_and_one_that_is_not_to_be_had_keeps_no_other_back(
    tmp_path: Path,
) -> None:
    apt = """#!/bin/bash
name=${@: -1}
[ "$name" != -qq ] || exit 0
echo "$name" >> "$MADE.asked"
[ "$name" != crun ] || exit 100
printf '#!/bin/sh\n' > "${MADE%/*}/$name"; /bin/chmod +x "${MADE%/*}/$name"
"""
    code, lines, made = ci_run(tmp_path, programs=("buildah", "debootstrap", "promtool"), apt=apt)
    assert (tmp_path / "made.asked").read_text().split() == ["crun", "faketime"]
    assert lines[0] == "not installed: crun; the tests that need them are skipped"
    assert made.splitlines()[-1] == "ship-check ship buildah debootstrap faketime prometheus"
    assert code == 0


def test_ci_allows_no_missing_program_where_they_are_installed(tmp_path: Path) -> None:
    code, lines, made = ci_run(tmp_path, programs=DEBIAN)
    assert code == 0
    assert not any("not installed" in line for line in lines)
    assert made.splitlines()[-1] == "ship-check ship buildah crun debootstrap faketime prometheus"


@pytest.mark.parametrize(
    ("required", "outcome"),
    [
        ("", pytest.skip.Exception),
        ("ship crun", pytest.skip.Exception),
        ("ship faketime", pytest.fail.Exception),
    ],
)
def test_only_a_program_of_a_required_package_fails_its_test(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv(REQUIRED, required)
    with pytest.raises(outcome, match="no-such-program is not installed; Debian's faketime has it"):
        program("no-such-program", "Debian's faketime")
    monkeypatch.setenv(REQUIRED, "ship")
    with pytest.raises(pytest.fail.Exception, match="the extra `ship` has it"):
        program("no-such-program", "the extra `ship`")


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
        env={**os.environ, REQUIRED: "buildah crun util-linux"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Skipped: this machine allows no containers: unshare" in done.stderr
