"""Which version is served: the table of cases, each as docs/loras.md states it."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.contract.lora_registry import LoraEntry
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.sets import ServedLora
from intaglio.loras.versions import (
    after_build,
    after_build_without_file,
    after_failure,
    after_request,
    after_rollback,
    after_watch,
)

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def served(*versions: str, **values: Any) -> ServedLora:
    return ServedLora(kind="style", bounds=(0, 1), versions=versions, **values)


def entry(added: str | None = None) -> LoraEntry:
    return LoraEntry.model_validate({"file": "x.safetensors", "kind": "style", "sha256": added})


def built(before: ServedLora | None, file: str, *, added: str | None = None, gone: str = "") -> ServedLora:
    there = set(before.versions) - {gone} if before is not None else set()
    return after_build("x", entry(added), before, file, there=there)


def test_a_build_publishes_the_method() -> None:
    fast = LoraEntry(file="x.safetensors", kind="style", method="lcm")
    published = after_build("x", fast, None, A, there=())
    assert published.method == "lcm"
    assert after_watch("x", published, B, keep=5).method == "lcm"
    assert after_build_without_file("x", entry(), published, there={A}).method is None


@pytest.mark.parametrize(
    ("before", "file", "added", "versions"),
    [
        (None, A, A, (A,)),
        (served(A, built=A), A, A, (A,)),
        (served(A, built=A), B, B, (A, B)),
        (served(A, B, built=B), A, A, (B, A)),  # an earlier file is the registry's again
        (served(A, B, built=A), A, A, (A, B)),  # `watch` published B since the last build
        (served(A, B, built=A), B, A, (A, B)),  # trained in place, and published by `watch`
        (served(A, B, built=A), C, C, (A, B, C)),
        (served(A, built=A, rejected=(B,)), B, A, (A,)),
        (served(A, built=A, rejected=(B,)), B, B, (A,)),
        (served(A, built=B, rejected=(B,)), A, A, (A,)),
        (served(B, A), B, B, (B, A)),  # written before `built` was recorded
        (served(B, A), C, C, (B, A, C)),
        (served(A, B, C, built=A, keep=3), D, D, (B, C, D)),
    ],
)
def test_what_a_build_serves(before: ServedLora | None, file: str, added: str, versions: Any) -> None:
    after = built(before, file, added=added)
    assert after.versions == versions
    assert after.built == file
    assert after.rejected == (() if before is None else before.rejected)


@pytest.mark.parametrize("before", [None, served(A, built=A), served(B, A, built=A)])
def test_a_build_refuses_a_file_that_was_overwritten(before: ServedLora | None) -> None:
    with pytest.raises(LoraRefused, match="lora x: its file changed since it was added; run intaglio loras"):
        built(before, B, added=A)


def test_a_current_version_without_its_file_does_not_stay() -> None:
    assert built(served(A, B, C, built=A), A, gone=C).versions == (B, A)
    assert built(served(B, C, built=A, rejected=(A,)), A, gone=C).versions == (B,)
    with pytest.raises(LoraRefused, match="was rejected, and no other version is left"):
        built(served(C, built=A, rejected=(A,)), A, gone=C)


def test_without_the_registrys_file_the_entry_stays_or_the_build_is_refused() -> None:
    before = served(A, B, built=A, rejected=(C,))
    assert after_build_without_file("x", entry(), None, there=()) is None
    assert after_build_without_file("x", entry(), before, there={B}) == before.model_copy(
        update={"bounds": (0, 1.5)}
    )
    with pytest.raises(LoraRefused, match=rf"{B[:12]}\) is missing or damaged; put the file back"):
        after_build_without_file("x", entry(), before, there={A})


def test_a_rejected_version_comes_back_only_by_name() -> None:
    after = after_rollback("x", served(A, B, built=B))
    assert (after.versions, after.rejected) == ((A,), (B,))
    with pytest.raises(LoraRefused, match=r"rejected by a rollback; intaglio loras serve x --version b{12} "):
        after_watch("x", after, B, keep=5)
    again = after_request(after, B)
    assert (again.versions, again.rejected) == ((A, B), ())
    with pytest.raises(ConfigError, match="no version before the current one"):
        after_rollback("x", after)


def test_a_failed_version_leaves_what_others_published() -> None:
    before = served(A, B, built=A)
    failed = after_watch("x", before, C, keep=2)
    assert after_failure(failed, C, before=before) == before
    others = after_request(failed, D)
    assert others.versions == (C, D)
    assert after_failure(others, C, before=before).versions == (D,)
    assert after_failure(before, C, before=before) == before, "somebody rolled it back"
    assert after_failure(failed, C, before=before).rejected == (), "only people reject"


def test_watch_decides_how_many_versions_are_kept() -> None:
    after = after_watch("x", served(A, B, built=A), C, keep=2)
    assert (after.versions, after.keep) == ((B, C), 2)
    assert built(after, D, added=D).versions == (C, D)
