"""Known weaknesses of the installed packages: `make audit`.

`pip check` needs no network. `pip-audit` asks PyPI's database. Where that cannot be reached it counts every
package as skipped, and says that no weaknesses are known. So what was skipped is counted here, and said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["main", "verdict"]

PIP_AUDIT: Final = (sys.executable, "-m", "pip_audit")
PIP_CHECK: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "check")
SECONDS: Final = 300


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Exit code and lines for a report of `pip-audit --format json`; 1 where a weakness is known."""
    packages: Sequence[Mapping[str, Any]] = report["dependencies"]
    skipped = [one for one in packages if "skip_reason" in one]
    weak = [line for one in packages for line in _weaknesses(one)]
    looked_up = len(packages) - len(skipped)
    lines = [*weak, f"{looked_up} packages were looked up, {len(weak)} weaknesses are known"]
    if skipped:
        names = ", ".join(one["name"] for one in skipped[:5])
        lines.append(
            f"NOT looked up: {len(skipped)} packages ({names}, ...): the database does not know them here"
        )
    return int(bool(weak)), lines


def _weaknesses(package: Mapping[str, Any]) -> list[str]:
    what = f"{package['name']} {package.get('version')}"
    return [
        f"{what}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no release'}"
        for found in package.get("vulns", ())
    ]


def main() -> int:
    if subprocess.run(PIP_CHECK, timeout=SECONDS, check=False).returncode:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        words = ["--skip-editable", "--progress-spinner", "off", "--format", "json", "--output", str(path)]
        done = subprocess.run(
            [*PIP_AUDIT, *words], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        try:
            report = json.loads(path.read_text())
        except (OSError, ValueError):
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            print(f"NOT looked up: no package, since pip-audit cannot work here: {reason}")
            return 0
    code, lines = verdict(report)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
