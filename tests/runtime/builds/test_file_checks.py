"""A changed file is named, with what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.builds.file_checks import (
    CheckedFiles,
    FileChecks,
    FileDigest,
    check_files,
    file_digest,
    file_problem,
    files_problem,
)
from intaglio.errors import EngineMismatch


def test_check_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    digest = file_digest(tmp_path / "a")
    check_files(tmp_path, {"a": digest}, command="make")
    for files, reason in (
        ({"b": digest}, "b is missing"),
        ({"../a": digest}, "outside"),
        ({"a": FileDigest(sha256=digest.sha256, size=4)}, "a has 3 bytes, not 4"),
        ({"a": FileDigest(sha256="1" * 64, size=3)}, "was changed"),
    ):
        with pytest.raises(EngineMismatch, match=f"{reason}.*rebuild with: make"):
            check_files(tmp_path, files, command="make")


def test_sizes_alone_and_digests_of_a_cache(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    digest = file_digest(tmp_path / "a")
    (tmp_path / "a").write_text("two")
    assert file_problem(tmp_path, "a", digest, digest=None) is None
    assert file_problem(tmp_path, "a", digest, digest=lambda path: digest) is None
    assert "was changed" in str(files_problem(tmp_path, {"a": digest}))


def fail_to_open(folder: Path, digest: FileDigest) -> None:
    with FileChecks(folder, command="make") as checks:
        checks.start({"a": digest})
        raise ValueError("opening the file failed")


def test_checks_in_threads_raise_when_the_block_ends(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    digest = file_digest(tmp_path / "a")
    (tmp_path / "a").write_text("two")
    with pytest.raises(EngineMismatch, match="a was changed"):
        fail_to_open(tmp_path, digest)
    with FileChecks(tmp_path, command="make", hashes=False) as checks:
        checks.start({"a": digest})
    (tmp_path / "a").write_text("longer")
    with FileChecks(tmp_path, command="make") as checks, pytest.raises(EngineMismatch, match="a has 6 bytes"):
        checks.start({"a": digest})


def test_a_file_is_compared_again_where_it_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    files = {"a": file_digest(path)}
    checked = CheckedFiles(tmp_path, command="make")
    checked.note(files)
    monkeypatch.setattr("hashlib.file_digest", None)
    checked.check(files)  # unchanged: nothing is hashed
    monkeypatch.undo()
    for damaged, reason in (("two", "a was changed"), ("longer", "a has 6 bytes")):
        path.unlink()
        path.write_text(damaged)
        with pytest.raises(EngineMismatch, match=reason):
            checked.check(files)
    path.unlink()
    with pytest.raises(EngineMismatch, match="a is missing"):
        checked.check(files)
    path.write_text("one")
    checked.check(files)
    with pytest.raises(EngineMismatch, match="b is missing"):
        checked.note({"b": files["a"]})
