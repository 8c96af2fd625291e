"""Which LoRAs a request may ask for."""

from __future__ import annotations

import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.lora_tags import LoraTag
from intaglio.errors import InvalidRequest, SwapFailed
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.request.loras import (
    AskedLora,
    absent_trigger_words,
    asked_loras,
    check_fused,
    check_resolved,
    resolved_loras,
)
from intaglio.request.request import LoraRequest


@pytest.mark.parametrize(
    ("prompt", "absent"),
    [
        ("a fox", ("Mara", "in moonlight  style")),
        ("MARA runs", ("in moonlight  style",)),
        ("maraschino", ("Mara", "in moonlight  style")),
        ("(mara:1.2), in  Moonlight style", ()),
    ],
)
def test_trigger_words_that_a_prompt_lacks(prompt: str, absent: tuple[str, ...]) -> None:
    words = {"a": ("Mara",), "b": ("Mara", "in moonlight  style")}
    loras = {
        name: ServedLora(kind="style", trigger_words=triggers, bounds=(0, 1), versions=("0" * 64,))
        for name, triggers in words.items()
    }
    chosen = tuple(ResolvedLora(id=name, sha256="0" * 64, weight=1.0) for name in words)
    assert absent_trigger_words(prompt, chosen, ServedLoras(loras=loras)) == absent


SERVED = ServedLoras(
    loras={
        "mara": ServedLora(kind="character", bounds=(0, 1.5), versions=("1" * 64,)),
        "night": ServedLora(kind="style", weight=0.5, bounds=(0, 1.0), versions=("2" * 64, "3" * 64)),
    },
    presets={"dusk": {"night": 0.5}},
)


def asked(*entries: tuple[str, float | None], tags: tuple[LoraTag, ...] = ()) -> list[AskedLora]:
    return asked_loras(tags, [LoraRequest(id=name, weight=weight) for name, weight in entries])


def test_presets_become_members_and_versions_the_current_one() -> None:
    found = resolved_loras(asked(("night", None), ("mara", 1)), SERVED, most=2)
    assert [(lora.id, lora.sha256[0], lora.weight) for lora in found] == [
        ("mara", "1", 1.0),
        ("night", "3", 0.5),
    ]
    (dusk,) = resolved_loras(asked(("dusk", 1.4)), SERVED, most=2)
    assert (dusk.id, dusk.weight) == ("night", 0.7)
    assert resolved_loras(asked(("mara", 0)), SERVED, most=2) == (), "weight 0 changes nothing"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([("day", None)], r"loras\[0\].id: 'day' is unknown; allowed: mara, night, dusk"),
        ([("night", 0.2), ("dusk", None)], r"loras\[1\].id: 'night' is asked for twice"),
        ([("mara", None), ("night", 1.1)], r"loras\[1\].weight: night at 1.1; allowed: 0 to 1"),
        ([("mara", None), ("night", None)], "loras: 2 LoRAs; allowed: at most 1"),
    ],
)
def test_sets_that_are_refused(entries: list[tuple[str, float | None]], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        resolved_loras(asked(*entries), SERVED, most=1)


def test_tags_of_the_prompt_are_as_good_as_the_list() -> None:
    """A preset's tag and its members in the list agree: that is what a picture's metadata have."""
    listed = resolved_loras(asked(("night", 0.35), ("mara", 1)), SERVED, most=2)
    tags = (LoraTag("dusk", 0.7), LoraTag("mara", 1.0))
    assert resolved_loras(asked(tags=tags), SERVED, most=2) == listed
    assert resolved_loras(asked(("night", 0.35), ("mara", 1), tags=tags), SERVED, most=2) == listed


@pytest.mark.parametrize(
    ("entries", "tags", "says"),
    [
        ([], [("day", None)], "^prompt: 'day' is unknown; allowed: mara, night, dusk"),
        ([], [("../day", None)], "^prompt: '../day' is unknown"),
        ([], [("night", 1.1)], "^prompt: night at 1.1; allowed: 0 to 1"),
        ([], [("night", 0.2), ("dusk", None)], "^prompt: 'night' is asked for twice"),
        ([("night", 0.3)], [("night", 0.2)], r"^loras\[0\].weight: night at 0.3, and at 0.2 in the prompt"),
    ],
)
def test_tags_that_are_refused(
    entries: list[tuple[str, float | None]], tags: list[tuple[str, float | None]], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        resolved_loras(asked(*entries, tags=tuple(LoraTag(*tag) for tag in tags)), SERVED, most=2)


ROLLED_BACK = ServedLoras(
    loras={
        "mara": ServedLora(kind="character", bounds=(0, 1.5), versions=("1" * 64,)),
        "night": ServedLora(
            kind="style", bounds=(0, 1.0), versions=("2" * 64, "3" * 64), rejected=("4" * 64, "8" * 64)
        ),
    },
    retired={"night": ("5" * 64, "8" * 64), "gone": ("6" * 64,)},
)


def resolved(lora: str, version: str, weight: float = 1.0) -> tuple[ResolvedLora, ...]:
    return (ResolvedLora(id=lora, sha256=version * 64, weight=weight),)


@pytest.mark.parametrize(
    "version", ["2", "3", "5"], ids=["an earlier one", "the served one", "a retired one"]
)
def test_files_that_preprocess_may_have_named(version: str) -> None:
    check_resolved(resolved("night", version), ROLLED_BACK, is_resident=False)


@pytest.mark.parametrize("is_resident", [False, True])
@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (resolved("day", "3"), r"loras\[0\]\.id: 'day' is unknown; allowed: mara, night"),
        (resolved("gone", "7"), r"loras\[0\]\.id: 'gone' is unknown"),
        (resolved("night", "3", 1.2), r"loras\[0\]\.weight: night at 1\.2; allowed: 0 to 1, its bounds"),
        (resolved("night", "3", -0.1), r"loras\[0\]\.weight: night at -0\.1; allowed: 0 to 1"),
        (
            resolved("night", "4"),
            "version 444444444444 of night was rejected by a rollback; allowed: 333333333333",
        ),
    ],
)
def test_files_and_weights_that_preprocess_never_writes(
    lora: tuple[ResolvedLora, ...], says: str, is_resident: bool
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_resolved(lora, ROLLED_BACK, is_resident=is_resident)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (resolved("gone", "6"), "cannot apply gone, which was removed while the request waited"),
        (resolved("night", "8"), "cannot apply a version of night rolled back while the request waited"),
    ],
)
def test_what_the_last_publication_took_away_may_be_asked_for_again(
    lora: tuple[ResolvedLora, ...], says: str
) -> None:
    """The caller named an id only, and the fault is not his."""
    with pytest.raises(SwapFailed, match=rf"^loras: {says}; send it again"):
        check_resolved(lora, ROLLED_BACK, is_resident=False)


@pytest.mark.parametrize("version", ["1", "7"], ids=["of another LoRA", "never published"])
def test_a_version_that_the_lora_never_had(version: str) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"loras\[0\]\.sha256: night has no version {version * 12} here"
    ):
        check_resolved(resolved("night", version), ROLLED_BACK, is_resident=False)
    check_resolved(resolved("night", version), ROLLED_BACK, is_resident=True)


def test_a_fused_set_is_named_whole_or_not_at_all() -> None:
    fused = [ResolvedLora(id=name, sha256="0" * 64, weight=0.8) for name in ("mara", "night")]
    check_fused([], fused)
    check_fused(asked(("night", None), ("mara", 0.8)), fused)
    tags = (LoraTag("mara", 0.8), LoraTag("night", None))
    check_fused(asked(tags=tags), fused)
    check_fused(asked(("night", 0.8), ("mara", 0.8), tags=tags), fused)
    for entries, says in (
        ([("day", None)], "'day' is unknown"),
        ([("mara", 0.5), ("night", None)], "0.5; allowed: absent, or as fused: mara at 0.8, night at 0.8"),
        ([("mara", None)], "not the fused set"),
        ([("mara", None), ("mara", None), ("night", None)], "not the fused set"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            check_fused(asked(*entries), fused)
