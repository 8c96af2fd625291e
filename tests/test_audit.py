"""Installed packages fit together, and what an audit could not look up is not called clean."""

from __future__ import annotations

import subprocess

from . import audit


def test_the_installed_packages_fit_together() -> None:
    done = subprocess.run(audit.PIP_CHECK, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_a_known_weakness_fails_and_is_named() -> None:
    weak = {"name": "pillow", "version": "9.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.0.1"]}]}
    clean = {"name": "numpy", "version": "1.26.4", "vulns": []}
    code, lines = audit.verdict({"dependencies": [weak, clean]})
    assert code == 1
    assert lines == [
        "pillow 9.0.0: PYSEC-1, fixed in 9.0.1",
        "2 packages were looked up, 1 weaknesses are known",
    ]


def test_what_was_not_looked_up_is_said() -> None:
    """pip-audit itself says then that no weaknesses are known."""
    skipped = {"name": "pillow", "skip_reason": "Dependency not found on PyPI"}
    code, lines = audit.verdict({"dependencies": [skipped]})
    assert code == 0
    assert lines[0] == "0 packages were looked up, 0 weaknesses are known"
    assert lines[1].startswith("NOT looked up: 1 packages (pillow, ...)")
