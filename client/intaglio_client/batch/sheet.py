"""The contact sheet: one HTML page beside the pictures, with their verdicts and scores.

It needs no server and no network. Its script hides and sorts what is there already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import PIL.Image

from intaglio_client.batch.folder import BatchFolder
from intaglio_client.batch.manifest import Record

__all__ = ["page_of", "write_missing_thumbs"]

_STYLE: Final = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }
body { margin: 0 }
header { position: sticky; top: 0; background: Canvas; padding: .7em 1em; border-bottom: 1px solid GrayText }
h1 { font-size: 1.1em; margin: 0 0 .5em }
header label { margin-right: 1em; white-space: nowrap }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(224px, 1fr)); gap: 1em; padding: 1em }
figure { margin: 0; border: 1px solid GrayText; border-top: 4px solid seagreen; padding: .5em }
figure.rejected { border-top-color: firebrick }
figure a { display: grid; place-items: center; height: 224px }
figure img { max-width: 100%; max-height: 100% }
figcaption { overflow-wrap: anywhere; font-size: .86em }
figcaption p { margin: .3em 0 0 }
figcaption .prompt { max-height: 4.2em; overflow: hidden }
.reason { color: firebrick }
.scores { opacity: .8 }
[hidden] { display: none }
"""
_SCRIPT: Final = """
const main = document.querySelector("main"), all = [...main.children];
const verdict = document.getElementById("verdict"), text = document.getElementById("text");
const sort = document.getElementById("sort"), down = document.getElementById("down");
const shown = document.getElementById("shown");
const scores = new Map(all.map(one => [one, JSON.parse(one.dataset.scores)]));
function update() {
  const words = text.value.toLowerCase().split(/\\s+/), key = sort.value, sign = down.checked ? -1 : 1;
  let count = 0;
  for (const one of all) {
    const said = one.textContent.toLowerCase(), wanted = ["", one.className].includes(verdict.value);
    one.hidden = !wanted || !words.every(word => said.includes(word));
    count += !one.hidden;
  }
  const value = one => key === "" ? Number(one.dataset.index) : scores.get(one)[key];
  const order = (a, b) => a === b ? 0 : a === undefined ? 1 : b === undefined ? -1 : sign * (a < b ? -1 : 1);
  main.append(...[...all].sort((a, b) => order(value(a), value(b))));
  shown.textContent = count + " of " + all.length + " shown";
}
for (const one of [verdict, text, sort, down]) one.addEventListener("input", update);
update();
"""


def page_of(title: str, records: Sequence[Record], folder: BatchFolder) -> str:
    """The page, in UTF-8. Everything that comes from a request or a file is escaped."""
    accepted = sum(bool(record["accepted"]) for record in records)
    keys = dict.fromkeys(key for record in records for key in _figures(record["scores"]))
    options = "".join(f"<option>{escape(key)}</option>" for key in keys)
    figures = "\n".join(_figure(record, folder) for record in records)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<header>
<h1>{escape(title)}: {len(records)} pictures, {accepted} accepted</h1>
<label>Verdict <select id="verdict"><option value="">all</option><option>accepted</option>\
<option>rejected</option></select></label>
<label>Text <input id="text" type="search" placeholder="prompt, reason, seed"></label>
<label>Sort by <select id="sort"><option value="">number</option>{options}</select></label>
<label><input id="down" type="checkbox"> largest first</label>
<span id="shown"></span>
</header>
<main>
{figures}
</main>
<script>{_SCRIPT}</script>
</html>
"""


def _figure(record: Record, folder: BatchFolder) -> str:
    verdict = "accepted" if record["accepted"] else "rejected"
    figures = _figures(record["scores"])
    inputs = record["inputs"]
    others = {key: value for key, value in inputs.items() if key != "prompt"}
    lines = [
        ("", f"{record['index']} {verdict}"),
        ("reason", record["reason"]),
        ("prompt", inputs["prompt"]),
        ("inputs", ", ".join(f"{key} {_shown(value)}" for key, value in others.items())),
        ("scores", ", ".join(f"{key} {value:.4g}" for key, value in figures.items())),
    ]
    shown = "".join(f'<p class="{kind}">{escape(str(text))}</p>' for kind, text in lines if text)
    thumb, file = quote(folder.thumb_of(record).as_posix()), quote(record["file"])
    return (
        f'<figure class="{verdict}" data-index="{record["index"]}" '
        f'data-scores="{escape(json.dumps(figures))}">'
        f'<a href="{escape(file)}"><img loading="lazy" src="{escape(thumb)}" '
        f'alt="{escape(str(inputs["prompt"]))}"></a><figcaption>{shown}</figcaption></figure>'
    )


def _figures(scores: Mapping[str, Any]) -> dict[str, float]:
    """Numbers among the scores by `filter.score`."""
    return dict(_numbers(scores, ""))


def _numbers(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _numbers(inner, f"{prefix}{key}.")
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield f"{prefix}{key}", inner


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_missing_thumbs(records: Iterable[Record], folder: BatchFolder) -> None:
    """Make the small pictures that a stop left out; OSError where one cannot be written."""
    for record in records:
        if (folder.path / folder.thumb_of(record)).exists():
            continue
        with PIL.Image.open(folder.path / record["file"]) as picture:
            folder.write_thumb(record, np.asarray(picture.convert("RGB"), dtype=np.uint8))
