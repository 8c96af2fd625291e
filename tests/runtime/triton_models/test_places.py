"""Where instances run."""

from __future__ import annotations

import os

import pytest

from intaglio.contract.server import HANG_SECONDS
from intaglio.engines import card
from intaglio.errors import ConfigError
from intaglio.triton_models import places
from intaglio.triton_models.places import Place, hang_seconds_of, places_of


def test_places_are_what_the_model_is_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "gpu_count", lambda: 4)
    monkeypatch.setattr(places, "gpu_count", lambda: 4)
    assert places_of({}) == ()
    assert places_of({"instances": "2"}) == (Place(0), Place(1))
    assert places_of({"gpus": "1,3"}) == (Place(0, 1), Place(1, 3))
    assert [place.gpu for place in places_of({"gpus": "all"})] == [0, 1, 2, 3]
    assert (hang_seconds_of({}), hang_seconds_of({"hang_seconds": "5"})) == (HANG_SECONDS, 5)
    with pytest.raises(ConfigError, match=r"server\.gpus: 7: no such card, CUDA sees 4 here"):
        places_of({"gpus": "0,7"})


@pytest.mark.parametrize(
    ("visible", "gpu", "seen"),
    [(None, 1, "1"), ("", 1, "1"), ("5,2", 1, "2"), ("GPU-ab, GPU-cd", 1, "GPU-cd")],
)
def test_an_instance_sees_its_own_card_only(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, gpu: int, seen: str
) -> None:
    """CUDA numbers the cards that CUDA_VISIBLE_DEVICES leaves."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Place(0, gpu).environment()["CUDA_VISIBLE_DEVICES"] == seen
    assert Place(0).environment() == dict(os.environ)
