"""Colours of segmentation maps: which palette a map is in, which colours it must not have, translation.

A segmentation ControlNet has learnt the colours of one palette. To it, a colour between two of them is no
class at all, and the colours of another palette are other classes. Axes: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.models import PaletteName
from intaglio.errors import ConfigError, InvalidRequest

__all__ = ["PALETTES", "Palette", "class_colours", "in_palette", "palette_of"]

Map = NDArray[np.uint8]
"""[H, W, RGB]."""
Palette = Mapping[int, str]
"""Colour 0xRRGGBB -> class."""

_ADE20K: Final = """
787878 wall; b47878 building; 06e6e6 sky; 503232 floor; 04c803 tree; 787850 ceiling; 8c8c8c road; cc05ff
bed; e6e6e6 windowpane; 04fa07 grass; e005ff cabinet; ebff07 sidewalk; 96053d person; 787846 earth;
08ff33 door; ff0652 table; 8fff8c mountain; ccff04 plant; ff3307 curtain; cc4603 chair; 0066c8 car;
3de6fa water; ff0633 painting; 0b66ff sofa; ff0747 shelf; ff09e0 house; 0907e6 sea; dcdcdc mirror;
ff095c rug; 7009ff field; 08ffd6 armchair; 07ffe0 seat; ffb806 fence; 0aff47 desk; ff290a rock; 07ffff
wardrobe; e0ff08 lamp; 6608ff bathtub; ff3d06 railing; ffc207 cushion; ff7a08 base; 00ff14 box; ff0829
column; ff0599 signboard; 0633ff chest of drawers; eb0cff counter; a09614 sand; 00a3ff sink; 8c8c8c
skyscraper; fa0a0f fireplace; 14ff00 refrigerator; 1fff00 grandstand; ff1f00 path; ffe000 stairs; 99ff00
runway; 0000ff case; ff4700 pool table; 00ebff pillow; 00adff screen door; 1f00ff stairway; 0bc8c8
river; ff5200 bridge; 00fff5 bookcase; 003dff blind; 00ff70 coffee table; 00ff85 toilet; ff0000 flower;
ffa300 book; ff6600 hill; c2ff00 bench; 008fff countertop; 33ff00 stove; 0052ff palm; 00ff29 kitchen
island; 00ffad computer; 0a00ff swivel chair; adff00 boat; 00ff99 bar; ff5c00 arcade machine; ff00ff
hovel; ff00f5 bus; ff0066 towel; ffad00 light; ff0014 truck; ffb8b8 tower; 001fff chandelier; 00ff3d
awning; 0047ff streetlight; ff00cc booth; 00ffc2 television receiver; 00ff52 airplane; 000aff dirt
track; 0070ff apparel; 3300ff pole; 00c2ff land; 007aff bannister; 00ffa3 escalator; ff9900 ottoman;
00ff0a bottle; ff7000 buffet; 8fff00 poster; 5200ff stage; a3ff00 van; ffeb00 ship; 08b8aa fountain;
8500ff conveyer belt; 00ff5c canopy; b800ff washer; ff001f plaything; 00b8ff swimming pool; 00d6ff
stool; ff0070 barrel; 5cff00 basket; 00e0ff waterfall; 70e0ff tent; 46b8a0 bag; a300ff minibike; 9900ff
cradle; 47ff00 oven; ff00a3 ball; ffcc00 food; ff008f step; 00ffeb tank; 85ff00 trade name; ff00eb
microwave; f500ff pot; ff007a animal; fff500 bicycle; 0abed4 lake; d6ff00 dishwasher; 00ccff screen;
1400ff blanket; ffff00 sculpture; 0099ff hood; 0029ff sconce; 00ffcc vase; 2900ff traffic light; 29ff00
tray; ad00ff ashcan; 00f5ff fan; 4700ff pier; 7a00ff crt screen; 00ffb8 plate; 005cff monitor; b8ff00
bulletin board; 0085ff shower; ffd600 radiator; 19c2c2 glass; 66ff00 clock; 5c00ff flag
"""
"""The 150 classes of ADE20K's scene parsing in the colours that segmentation ControlNets are trained with
(controlnet_aux and mmsegmentation have the same). Roads and skyscrapers share a colour.
"""
_TRAFFIC: Final = """
804080 road; f423e8 sidewalk; 464646 building; 66669c wall; be9999 fence; 999999 pole; faaa1e traffic
light; dcdc00 traffic sign; 6b8e23 vegetation; 98fb98 terrain; 4682b4 sky; dc143c person; ff0000 rider;
00008e car; 000046 truck; 003c64 bus; 005064 train; 0000e6 motorcycle; 770b20 bicycle
"""
"""The 19 classes that Cityscapes evaluates; BDD100K's semantic segmentation has the same colours."""
_CITYSCAPES_ONLY: Final = """
6f4a00 dynamic; 510051 ground; faaaa0 parking; e6968c rail track; b4a5b4 guard rail; 966464 bridge;
96785a tunnel; 00005a caravan; 00006e trailer
"""
"""Further classes in Cityscapes' own colour images (cityscapesScripts, labels.py)."""
_UNLABELLED: Final = "000000 unlabelled"
_TO_ADE20K: Final[Mapping[str, str]] = {
    "traffic sign": "signboard",
    "vegetation": "tree",
    "terrain": "grass",
    "rider": "person",
    "motorcycle": "minibike",
    "dynamic": "unlabelled",
    "ground": "earth",
    "parking": "road",
    "guard rail": "railing",
    "caravan": "van",
    "trailer": "truck",
}
"""The nearest class of ADE20K where none has the same name. It has no trains, rail tracks or tunnels."""


def _read(*tables: str) -> Palette:
    found: dict[int, str] = {}
    for entry in ";".join(tables).split(";"):
        colour, *words = entry.split()
        found.setdefault(int(colour, 16), " ".join(words))
    return found


PALETTES: Final[Mapping[PaletteName, Palette]] = {
    "ade20k": _read(_ADE20K, _UNLABELLED),
    "bdd100k": _read(_TRAFFIC, _UNLABELLED),
    "cityscapes": _read(_TRAFFIC, _CITYSCAPES_ONLY, _UNLABELLED),
}
_ORDER: Final[tuple[PaletteName, ...]] = ("cityscapes", "bdd100k", "ade20k")


def class_colours(count: int) -> NDArray[np.uint8]:
    """[count, RGB] colours of the classes of a segmentation network, in the order of its data set.

    Raises:
        ConfigError: no palette has so many classes.
    """
    table = {150: _ADE20K, 19: _TRAFFIC}.get(count)
    if table is None:
        allowed = "150 (ADE20K) or 19 (Cityscapes, BDD100K)"
        raise ConfigError(f"a segmentation of {count} classes; allowed: {allowed}")
    codes = np.array([int(entry.split()[0], 16) for entry in table.split(";")])
    colours: NDArray[np.uint8] = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)
    return colours


def palette_of(pixels: Map) -> PaletteName | None:
    """The palette that has every colour of `pixels` [H, W, RGB]; None where there is none.

    A map of Cityscapes' 19 classes is one of BDD100K too, with the same meaning.
    """
    colours = _colours(_codes(pixels))
    return next((name for name in _ORDER if colours <= PALETTES[name].keys()), None)


def in_palette(pixels: Map, wanted: PaletteName, *, named: PaletteName | None, field: str) -> Map:
    """`pixels` [H, W, RGB] in the colours of the palette `wanted`.

    `named` is the palette that the caller says `pixels` are in; None takes `wanted`'s where all colours are
    of it, else the palette that has them all. Maps of another palette are translated class by class.

    Raises:
        InvalidRequest: a colour is not of the palette; the message names the first one and its place. Or a
            class has no counterpart in `wanted`.
    """
    codes = _codes(pixels)
    colours = _colours(codes)
    given = named
    if given is None:
        given = wanted if colours <= PALETTES[wanted].keys() else palette_of(pixels) or wanted
    if unknown := colours - PALETTES[given].keys():
        raise InvalidRequest(field, _unknown_colour(codes, unknown, given), allowed=_allowed(given))
    if given == wanted:
        return pixels
    return _translated(pixels, codes, colours, given, wanted, field=field)


def _codes(pixels: Map) -> NDArray[np.int32]:
    """[H, W] colours as 0xRRGGBB."""
    parts = pixels.astype(np.int32)
    codes: NDArray[np.int32] = parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
    return codes


def _colours(codes: NDArray[np.int32]) -> set[int]:
    """The colours that occur. A map has few edges, so only the first pixel of each run is looked at."""
    flat = codes.ravel()
    firsts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    return set(np.unique(flat[firsts]).tolist())


def _unknown_colour(codes: NDArray[np.int32], unknown: set[int], palette: PaletteName) -> str:
    y, x = np.argwhere(np.isin(codes, list(unknown)))[0]
    code = int(codes[y, x])
    share = np.isin(codes, list(unknown)).mean()
    return (
        f"the colour {_triple(code)} at x={x}, y={y} is no class of {palette}; "
        f"{len(unknown)} such colours on {share:.1%} of the map"
    )


def _allowed(palette: PaletteName) -> str:
    return (
        f"a map in the colours of {palette}, or `palette` naming its own ({', '.join(PALETTES)}); "
        "neither JPEG nor smoothed edges, which make colours of their own"
    )


def _triple(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def _translated(
    pixels: Map,
    codes: NDArray[np.int32],
    colours: set[int],
    given: PaletteName,
    wanted: PaletteName,
    *,
    field: str,
) -> Map:
    targets = {name: code for code, name in PALETTES[wanted].items()}
    made = np.empty_like(pixels)
    for code in colours:
        name = PALETTES[given][code]
        target = targets.get(name)
        if target is None and wanted == "ade20k":
            target = targets.get(_TO_ADE20K.get(name, ""))
        if target is None:
            problem = f"its class {name} ({given}) has no counterpart in {wanted}, which the ControlNet knows"
            raise InvalidRequest(field, problem, allowed=f"a map in the colours of {wanted}")
        made[codes == code] = (target >> 16, target >> 8 & 255, target & 255)
    return made
