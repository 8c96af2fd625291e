"""Every colour of the world, once: its RGB, and the words a caption may use for it."""

from __future__ import annotations

from typing import NamedTuple

RGB = tuple[int, int, int]


class Colour(NamedTuple):
    """An RGB value (0..255) and its names; the first name is the canonical one."""

    rgb: RGB
    names: tuple[str, ...]


ATTIRE: dict[str, Colour] = {
    "red": Colour((200, 40, 45), ("red", "crimson", "scarlet")),
    "yellow": Colour((240, 200, 60), ("yellow", "golden")),
    "green": Colour((40, 125, 70), ("green", "emerald")),
    "blue": Colour((45, 80, 190), ("blue", "cobalt")),
    "purple": Colour((120, 65, 165), ("purple", "violet")),
    "white": Colour((238, 238, 240), ("white", "ivory")),
    "black": Colour((42, 42, 50), ("black", "jet black")),
}
HAIR: dict[str, Colour] = {
    "black": Colour((38, 32, 36), ("black", "dark")),
    "brown": Colour((110, 70, 40), ("brown", "chestnut")),
    "blonde": Colour((228, 190, 105), ("blonde", "fair")),
    "ginger": Colour((205, 95, 40), ("ginger", "auburn")),
    "silver": Colour((190, 192, 200), ("silver", "grey")),
}
SKIN: dict[str, Colour] = {
    "light": Colour((250, 214, 190), ("light", "pale")),
    "tan": Colour((224, 172, 130), ("tan", "olive")),
    "brown": Colour((160, 110, 78), ("brown",)),
    "dark": Colour((102, 68, 50), ("dark",)),
}
# The acrobat's gloves and boots tell the four outer limbs apart: colours that nothing else in the world uses.
LIMBS: dict[str, RGB] = {
    "right_forearm": (255, 122, 0),
    "left_forearm": (0, 226, 230),
    "right_shin": (255, 0, 165),
    "left_shin": (140, 250, 20),
}
# What the character LoRA teaches: colours outside the tables above.
MARA_HAIR: RGB = (10, 150, 135)
MARA_TOP: RGB = (196, 148, 40)
MARA_BOTTOM: RGB = (112, 22, 48)
