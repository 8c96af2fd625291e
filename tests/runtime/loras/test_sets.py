"""Digests of sets of LoRAs."""

from __future__ import annotations

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.sets import set_digest, set_text


def lora(name: str, digit: str, weight: float) -> ResolvedLora:
    return ResolvedLora(id=name, sha256=digit * 64, weight=weight)


def test_a_digest_depends_on_content_and_weight_alone() -> None:
    a, b = lora("a", "1", 1.0), lora("b", "2", 0.5)
    assert set_digest((a, b)) == set_digest((b, a)) == set_digest((lora("other", "1", 1.0), b))
    sets = [(), (a,), (b,), (a, b), (lora("a", "1", 0.9), b), (lora("a", "3", 1.0), b)]
    assert len({set_digest(one) for one in sets}) == len(sets)


def test_text_names_weights() -> None:
    assert set_text((lora("a", "1", 1.0), lora("b", "2", 0.5))) == "a@1 + b@0.5"
    assert set_text(()) == "no LoRA"
