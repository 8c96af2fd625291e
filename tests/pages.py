"""The fenced blocks of a Markdown page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every block, in order; a block of commands has no language."""
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def run_shell(page: str, folder: Path) -> int:
    """Run every `bash` block of a page that needs no server in `folder`; how many there are."""
    texts = [text for language, text in blocks(page) if language == "bash"]
    for text in texts:
        code = re.sub(r"^intaglio ", f"{sys.executable} -m intaglio ", text, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", code],
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return len(texts)
