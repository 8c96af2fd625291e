"""The tables of docs/ are those that the code makes now."""

from __future__ import annotations

import pytest

from reference.pages import PARTS, ROOT, replaced, written_pages


@pytest.mark.parametrize("page", PARTS)
def test_pages_are_as_the_code_writes_them(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == written_pages()[page], "run: python -m reference"


def test_only_the_part_between_the_comments_is_replaced() -> None:
    begin, end = "<!-- generated: x (python -m reference) -->", "<!-- end: x -->"
    page = f"before\n{begin}\nold\nlines\n{end}\nafter\n"
    assert replaced(page, "x", "new \\1", page="p") == f"before\n{begin}\nnew \\1\n{end}\nafter\n"
    for wrong in ("no comments", page + page):
        with pytest.raises(ValueError, match="p: there must be one part"):
            replaced(wrong, "x", "new", page="p")
