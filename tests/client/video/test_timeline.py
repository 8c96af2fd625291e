"""What each frame shows."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio_client.video.timeline import Timeline


@given(
    pictures=st.integers(1, 7),
    rate=st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(7, 2)]),
    duration=st.fractions(Fraction(1, 2), 3, max_denominator=50),
    share=st.fractions(0, Fraction(19, 20), max_denominator=20),
)
def test_every_picture_has_its_time(
    pictures: int, rate: Fraction, duration: Fraction, share: Fraction
) -> None:
    timeline = Timeline(pictures, rate, duration, duration * share)
    moments = list(timeline.moments())
    assert len(moments) == timeline.frames == round(pictures * duration * rate)
    assert [moment.picture for moment in moments] == sorted(moment.picture for moment in moments)
    for picture in range(pictures):
        count = sum(moment.picture == picture for moment in moments)
        assert abs(count - duration * rate) < 1
    for moment in moments:
        assert 0 <= moment.progress <= 1
        if moment.following is not None:
            assert moment.following == moment.picture + 1 < pictures
            assert 0 < moment.share < 1
            assert 0 <= moment.following_progress <= moment.progress


def test_the_next_picture_comes_in_at_the_end() -> None:
    moments = list(Timeline(2, Fraction(10), Fraction(1), Fraction(3, 10)).moments())
    assert [moment.following for moment in moments] == [None] * 7 + [1] * 3 + [None] * 10
    assert [moment.share for moment in moments[7:10]] == [0.25, 0.5, 0.75]
    progress = [moment.following_progress for moment in moments[7:10]] + [m.progress for m in moments[10:]]
    assert progress == pytest.approx([step / 12 for step in range(13)]), "it moves on without a jump"
