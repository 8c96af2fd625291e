"""Fuzz the targets, with the corpus as a beginning.

    python -m tests.fuzz --seconds 60 [TARGET ...]

Every target has so many seconds of a processor and a process of its own. Inputs that end one are written to
`build/fuzz/TARGET/`, and the exit code is then 1. Mend the parser by its rule, and keep the input in
`tests/fuzz/corpus/TARGET/`, where the ordinary tests replay it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
FOUND: Final = ROOT / "build" / "fuzz"
LONGEST_INPUT: Final = 4096
LONGEST_RUN: Final = 10
"""Seconds that one input may take; a longer one is a defect, too."""
MOST_MEMORY: Final = 2048
"""MiB."""


def fuzz_one(name: str, words: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris  # noqa: PLC0415  (of the extra `fuzz`)

    with atheris.instrument_imports(include=["intaglio"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415  (instrumented while it is imported)

    atheris.Setup([sys.argv[0], *words], TARGETS[name])
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> bool:
    """Whether nothing was found."""
    folder = FOUND / name
    grown = folder / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    grown.mkdir(parents=True)
    words = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", f"-timeout={LONGEST_RUN}"]
    words += [
        f"-rss_limit_mb={MOST_MEMORY}",
        f"-artifact_prefix={folder}/",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--run",
        name,
        "--",
        *words,
        str(grown),
        str(CORPUS / name),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "0")
    found = sorted(path for path in folder.iterdir() if path.is_file())
    print(f"{name:<12} {runs:>9} inputs in {seconds} s, {len(list(grown.iterdir()))} new kinds", flush=True)
    if done.returncode or found:
        (folder / "output.log").write_text(done.stdout + done.stderr)
        print(f"{'':<12} {', '.join(str(path) for path in found)}; {folder / 'output.log'}", flush=True)
    return not found and not done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--run", metavar="TARGET", help="fuzz it in this process; options of libFuzzer follow --"
    )
    given = parser.parse_args()
    if given.run:
        fuzz_one(given.run, given.targets)
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  (instrumented in the other case)

    clean = [fuzz(name, given.seconds) for name in given.targets or TARGETS]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
