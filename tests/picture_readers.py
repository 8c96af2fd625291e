"""How others read what a picture says of itself: the rules of two programs, stated without our writer.

`read_webui` is AUTOMATIC1111's "PNG Info": PNG text `parameters`, or EXIF UserComment. The last line holds
`Name: value` pairs with commas between them, if it has at least three; a value with a comma or a colon stands
in quotes, as JSON. `Negative prompt:` at the beginning of a line begins the negative prompt.

`read_civitai` is what civitai shows after an upload: the line that begins with `Steps: ` holds the pairs; the
first `Negative prompt:`, wherever it stands, ends the prompt; `<lora:name:weight>` names resources, and
`Lora hashes` holds a list of pairs in quotes.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

from PIL import Image

__all__ = ["read_civitai", "read_webui"]

_EXIF = 0x8769
_USER_COMMENT = 0x9286


def _text_of(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if "parameters" in image.info:
            return str(image.info["parameters"])
        comment = image.getexif().get_ifd(_EXIF)[_USER_COMMENT]
    code, text = comment[:8], comment[8:]
    assert code == b"UNICODE\0"
    return str(text.decode("utf-16-be"))


def read_webui(data: bytes) -> dict[str, str]:
    """Every value by its label; also `Prompt`, `Negative prompt`, `Size-1`, `Size-2`."""
    *lines, last = _text_of(data).strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3, "else the line would count as prompt"
    parts: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    part = "Prompt"
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            part = "Negative prompt"
        parts[part].append(line.removeprefix("Negative prompt:").strip())
    found = {name: "\n".join(text) for name, text in parts.items()}
    for name, value in pairs:
        found[name] = json.loads(value) if value.startswith('"') else value
        if size := re.fullmatch(r"(\d+)x(\d+)", value):
            found[f"{name}-1"], found[f"{name}-2"] = size[1], size[2]
    return found


def read_civitai(data: bytes) -> dict[str, Any]:
    """prompt, negativePrompt, the values by civitai's names, and `resources`."""
    text = _text_of(data)
    assert "Steps: " in text, "else it would not be read at all"
    lines = [line for line in text.split("\n") if line.strip()]
    details = next(line for line in lines if line.startswith("Steps: "))
    lines.remove(details)
    prompt, *negative = (part.strip() for part in "\n".join(lines).split("Negative prompt:"))
    hashes = {}
    if quoted := re.search(r'Lora hashes: "([^"]*)"', details):
        hashes = dict(pair.strip().split(": ") for pair in quoted[1].split(","))
        details = details.replace(quoted[0], "")
    values = dict(pair.strip().split(": ", 1) for pair in details.split(",") if pair.strip())
    names = {"Seed": "seed", "CFG scale": "cfgScale", "Sampler": "sampler", "Steps": "steps"}
    resources = []
    for kind, name, weight in re.findall(r"<(lora|hypernet):([a-zA-Z0-9_.\-]+):([0-9.]+)>", prompt):
        resource = {"type": kind, "name": name, "weight": float(weight), "hash": hashes.pop(name, None)}
        resources.append(resource)
    assert not hashes, "a hash of a LoRA that no tag names"
    return {
        **{names.get(name, name): value for name, value in values.items()},
        "prompt": prompt,
        "negativePrompt": " ".join(negative).strip(),
        "resources": resources,
    }
