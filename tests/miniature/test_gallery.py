"""`python -m miniature.gallery --help` helps; it paints nothing."""

from __future__ import annotations

import pytest

from miniature import gallery


def test_help_paints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gallery, "paint_gallery", lambda out: pytest.fail(f"painted {out}"))
    with pytest.raises(SystemExit) as ended:
        gallery.main(["--help"])
    assert ended.value.code == 0
    assert "--out" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        gallery.main(["--outt", "x.png"])
    assert ended.value.code == 2
