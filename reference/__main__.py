"""`python -m reference`: write every generated part of docs/."""

from __future__ import annotations

from reference.pages import ROOT, written_pages

if __name__ == "__main__":
    for page, text in written_pages().items():
        path = ROOT / page
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {page}")
