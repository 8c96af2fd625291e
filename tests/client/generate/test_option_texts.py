"""Texts of options become values."""

from __future__ import annotations

import pytest

from intaglio.errors import InvalidRequest
from intaglio_client.generate.option_texts import numbers_from_text


def test_a_list_of_numbers() -> None:
    assert numbers_from_text("sigmas", "14.6, 1,0") == [14.6, 1.0, 0.0]
    with pytest.raises(InvalidRequest, match="timesteps: 'x'; allowed: a number"):
        numbers_from_text("timesteps", "999,x")
