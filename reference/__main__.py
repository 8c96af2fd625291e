"""`python -m reference`: write every generated part of docs/ and docker/."""

from __future__ import annotations

from reference.pages import ROOT, written_pages
from reference.shipping import written_files

if __name__ == "__main__":
    for page, text in {**written_pages(), **written_files(ROOT)}.items():
        path = ROOT / page
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {page}")
