"""Sets of LoRAs as values."""

from __future__ import annotations

from intaglio.contract.lora_registry import (
    ResolvedLora,
)
from intaglio.loras.sets import set_digest, set_text


def test_a_sets_digest_is_its_content() -> None:
    a, b = (
        ResolvedLora(id="a", sha256="1" * 64, weight=1.0),
        ResolvedLora(id="b", sha256="2" * 64, weight=0.5),
    )
    same = a.model_copy(update={"id": "c"})
    assert set_digest((a, b)) == set_digest((b, same))
    assert (
        len(
            {set_digest(loras) for loras in ((), (a,), (b,), (a, b), (a.model_copy(update={"weight": 0.9}),))}
        )
        == 5
    )
    assert (set_text((a, b)), set_text(())) == ("a@1 + b@0.5", "no LoRA")
