"""The eight places of the world, and a ninth (meadow) that only a LoRA knows.

Each one paints a Canvas from a random generator.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from miniature.canvas import RGB, Array, Canvas, Limb, Patch

SIZE = 256
_SHIFT = 4  # sub-pixel bits of cv2's anti-aliased drawing
_UP = (0.0, 0.9, 0.43)
Point = tuple[float, float]


def _rows() -> Array:
    return np.arange(SIZE, dtype=np.float32)[:, None] * np.ones((1, SIZE), np.float32)


def _polygon(points: list[Point]) -> Patch:
    corners = np.array(points)
    left, top = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, SIZE - 1)
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 1, SIZE)
    if right <= left or bottom <= top:
        return Patch(np.zeros((1, 1), np.float32))
    mask = np.zeros((bottom - top, right - left), np.uint8)
    fixed = np.round((corners - (left, top)) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], (255,), cv2.LINE_AA, _SHIFT)
    return Patch((mask / np.float32(255)).astype(np.float32), int(top), int(left))


def _disc(x: float, y: float, radius: float) -> Patch:
    left, top = (int(np.clip(at - radius - 1, 0, SIZE - 1)) for at in (x, y))
    right, bottom = (int(np.clip(at + radius + 2, 1, SIZE)) for at in (x, y))
    columns = np.arange(left, right, dtype=np.float32)[None, :]
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    return Patch(np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1).astype(np.float32), top, left)


def _box(left: float, top: float, right: float, bottom: float) -> Patch:
    return _polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def _below(line: Array | float) -> Patch:
    top = max(int(np.min(line)) - 1, 0)
    return Patch(np.clip(_rows()[top:] - np.asarray(line, np.float32) + 0.5, 0, 1).astype(np.float32), top)


def _everywhere() -> Patch:
    return Patch(np.ones((SIZE, SIZE), np.float32))


def _gradient(top: RGB, bottom: RGB, end: float) -> Array:
    share = np.clip(_rows() / end, 0, 1)[..., None]
    mixed: Array = (np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share).astype(
        np.float32
    )
    return mixed


def _sky(canvas: Canvas, top: RGB, bottom: RGB, end: float) -> None:
    canvas.picture = _gradient(top, bottom, end)


def _ground(canvas: Canvas, line: Array | float, near: RGB, far: RGB, *, part: str = "ground") -> None:
    start = float(np.mean(line))
    share = np.clip((_rows() - start) / (SIZE - start), 0, 1).astype(np.float32)
    colour = np.array(far, np.float32) + share[..., None] * (
        np.array(near, np.float32) - np.array(far, np.float32)
    )
    canvas.lay(_below(line), colour, part=part, depth=0.12 + 0.4 * share, normal=_UP)


def _hills(rng: np.random.Generator, base: float, height: float) -> Array:
    x = np.arange(SIZE, dtype=np.float32)[None, :]
    phase, waves = rng.uniform(0, 6.28, 2), rng.uniform(0.9, 1.8, 2)
    wave: Array = np.sin(x / SIZE * 6.28 * waves[0] + phase[0]) + 0.4 * np.sin(
        x / SIZE * 12.6 * waves[1] + phase[1]
    )
    return (base + height * wave).astype(np.float32)


def _pine(canvas: Canvas, x: float, foot: float, height: float, colour: RGB, tip: RGB | None = None) -> None:
    canvas.lay(
        _box(x - height * 0.04, foot - height * 0.2, x + height * 0.04, foot),
        (92, 62, 44),
        part="structure",
        depth=0.16,
    )
    for level in range(3):
        top, width = foot - height * (1 - level * 0.22), height * (0.16 + 0.07 * level)
        low = top + height * 0.4
        canvas.lay(
            _polygon([(x, top), (x - width, low), (x + width, low)]), colour, part="structure", depth=0.17
        )
        if tip:
            edge = top + height * 0.2
            canvas.lay(
                _polygon([(x, top), (x - width * 0.5, edge), (x + width * 0.5, edge)]),
                tip,
                part="structure",
                depth=0.17,
            )


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon, shore = rng.uniform(95, 115), rng.uniform(150, 168)
    _sky(canvas, (120, 190, 238), (206, 232, 246), horizon)
    canvas.lay(
        _disc(rng.uniform(25, 230), rng.uniform(26, 56), rng.uniform(13, 19)),
        (255, 240, 170),
        part="sky",
        depth=0.03,
    )
    canvas.lay(_below(horizon), (52, 132, 190), part="water", depth=0.1, normal=_UP)
    canvas.lay(_below(_hills(rng, shore - 7, 2.5)), (214, 238, 244), part="water", depth=0.16, normal=_UP)
    _ground(canvas, _hills(rng, shore, 2.5), (240, 214, 156), (226, 198, 140))


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(168, 184)
    _sky(canvas, (142, 176, 132), (196, 214, 160), floor)
    for layer, (shade, spread) in enumerate((((88, 128, 92), 8), ((50, 92, 62), 6))):
        for index in range(spread):
            x = (index + rng.uniform(0.2, 0.8)) * SIZE / spread
            _pine(canvas, x, floor + 4, rng.uniform(110, 150) + 20 * layer, shade)
    _ground(canvas, _hills(rng, floor, 3), (70, 86, 42), (92, 112, 58))


def _street(canvas: Canvas, rng: np.random.Generator) -> None:
    kerb = rng.uniform(172, 186)
    _sky(canvas, (168, 186, 204), (214, 220, 226), kerb)
    x = -rng.uniform(0, 30)
    while x < SIZE:
        width, top = rng.uniform(42, 62), rng.uniform(20, 84)
        grey = int(rng.integers(104, 148))
        canvas.lay(_box(x, top, x + width, kerb), (grey, grey - 4, grey + 2), part="structure", depth=0.12)
        for row in np.arange(top + 9, kerb - 20, 22):
            for column in np.arange(x + 8, x + width - 10, 15):
                canvas.lay(
                    _box(column, row, column + 8, row + 11), (236, 220, 164), part="structure", depth=0.12
                )
        x += width + 2
    _ground(canvas, kerb, (74, 76, 82), (92, 94, 100))
    canvas.lay(_box(0, kerb, SIZE, kerb + 7), (176, 176, 178), part="ground", depth=0.16, normal=_UP)


def _night(canvas: Canvas, rng: np.random.Generator) -> None:
    ground = rng.uniform(180, 196)
    _sky(canvas, (14, 18, 48), (48, 52, 104), ground)
    for _ in range(26):
        canvas.lay(
            _disc(rng.uniform(4, 252), rng.uniform(4, ground - 40), rng.uniform(0.9, 1.6)),
            (236, 236, 210),
            part="sky",
            depth=0.02,
        )
    moon_x, moon_y = rng.uniform(30, 226), rng.uniform(30, 60)
    canvas.lay(_disc(moon_x, moon_y, 17), (242, 238, 206), part="sky", depth=0.03)
    _ground(canvas, _hills(rng, ground, 5), (22, 32, 36), (30, 44, 48))


def _snow(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(158, 176)
    _sky(canvas, (176, 196, 220), (226, 234, 242), floor)
    canvas.lay(_below(_hills(rng, floor - 34, 12)), (204, 216, 230), part="ground", depth=0.1, normal=_UP)
    for index in range(4):
        _pine(
            canvas,
            (index + rng.uniform(0.15, 0.85)) * 64,
            floor + 3,
            rng.uniform(60, 96),
            (66, 102, 98),
            (246, 250, 252),
        )
    _ground(canvas, _hills(rng, floor, 3), (240, 244, 250), (222, 230, 240))


def _room(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(176, 190)
    _sky(canvas, (228, 196, 168), (236, 208, 182), floor)
    canvas.lay(_everywhere(), canvas.picture.copy(), part="structure", depth=0.15)
    x, y = rng.uniform(14, 60), rng.uniform(34, 52)
    canvas.lay(_box(x, y, x + 62, y + 66), (244, 238, 226), part="structure", depth=0.16)
    canvas.lay(_box(x + 5, y + 5, x + 57, y + 61), (150, 204, 232), part="sky", depth=0.04)
    canvas.lay(_box(x + 29, y + 5, x + 33, y + 61), (244, 238, 226), part="structure", depth=0.16)
    x, y = rng.uniform(160, 196), rng.uniform(40, 62)
    canvas.lay(_box(x, y, x + 46, y + 36), (122, 78, 50), part="structure", depth=0.17)
    canvas.lay(_box(x + 4, y + 4, x + 42, y + 32), (208, 178, 120), part="structure", depth=0.16)
    _ground(canvas, floor, (136, 84, 52), (160, 104, 66))
    canvas.lay(_box(0, floor - 5, SIZE, floor), (246, 236, 222), part="structure", depth=0.17)


def _desert(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(148, 166)
    _sky(canvas, (244, 176, 120), (252, 222, 164), floor)
    canvas.lay(
        _disc(rng.uniform(30, 226), rng.uniform(40, 90), rng.uniform(18, 24)),
        (255, 246, 214),
        part="sky",
        depth=0.03,
    )
    canvas.lay(_below(_hills(rng, floor - 12, 12)), (206, 138, 88), part="ground", depth=0.1, normal=_UP)
    for side in (rng.uniform(14, 60), rng.uniform(196, 242)):
        foot, height = floor + rng.uniform(4, 16), rng.uniform(44, 66)
        arm = rng.choice((-1, 1)) * 13
        elbow = -height * 0.4
        for start, end, radius in (
            ((0, 0), (0, -height), 6),
            ((0, elbow), (arm, elbow), 4),
            ((arm, elbow), (arm, -height * 0.75), 4),
        ):
            at = np.array([side, foot], np.float32)
            limb = Limb(at + np.array(start, np.float32), at + np.array(end, np.float32), (radius, radius))
            canvas.capsule(limb, (88, 122, 78), part="structure", depth=0.2)
    _ground(canvas, _hills(rng, floor, 6), (214, 152, 92), (226, 168, 108))


def _stage(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(178, 192)
    folds, phase = rng.uniform(7, 10), rng.uniform(0, 6.28)
    x = np.arange(SIZE, dtype=np.float32)[None, :] * np.ones((SIZE, 1), np.float32)
    wave = 0.78 + 0.22 * np.sin(x / SIZE * 6.28 * folds + phase)
    canvas.lay(
        _everywhere(),
        (np.array((140, 26, 36), np.float32) * wave[..., None]).astype(np.float32),
        part="structure",
        depth=0.14,
    )
    canvas.lay(_below(floor), (112, 70, 44), part="ground", depth=0.3, normal=_UP)
    _ground(canvas, floor, (120, 76, 48), (96, 60, 38))
    middle = rng.uniform(90, 166)
    light = np.clip(canvas.picture * 1.34, 0, 255).astype(np.float32)
    beam = _polygon([(middle - 14, 0), (middle + 14, 0), (middle + 84, SIZE), (middle - 84, SIZE)])
    canvas.picture[:, beam.left : beam.left + beam.cover.shape[1]] += (
        beam.cover[..., None] * (light - canvas.picture)[:, beam.left : beam.left + beam.cover.shape[1]]
    )
    canvas.lay(_box(0, 0, SIZE, 13), (94, 14, 24), part="structure", depth=0.16)


def _meadow(canvas: Canvas, rng: np.random.Generator) -> None:
    floor = rng.uniform(128, 146)
    _sky(canvas, (112, 178, 244), (196, 224, 250), floor)
    for _ in range(3):
        x, y = rng.uniform(20, 236), rng.uniform(22, 76)
        for dx in (-13, 0, 13):
            canvas.lay(_disc(x + dx, y - (4 if dx == 0 else 0), 11), (250, 252, 255), part="sky", depth=0.03)
    canvas.lay(_below(_hills(rng, floor - 8, 6)), (120, 186, 92), part="ground", depth=0.1, normal=_UP)
    _ground(canvas, _hills(rng, floor, 4), (112, 200, 74), (142, 212, 96))
    for _ in range(26):
        y = rng.uniform(floor + 16, 250)
        colour = ((244, 120, 170), (252, 246, 250), (250, 220, 90))[int(rng.integers(3))]
        canvas.lay(
            _disc(rng.uniform(4, 252), y, 2 + 2.4 * (y - floor) / (SIZE - floor)),
            colour,
            part="ground",
            depth=0.3,
            normal=_UP,
        )


_PAINTERS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "beach": _beach,
    "forest": _forest,
    "street": _street,
    "night": _night,
    "snow": _snow,
    "room": _room,
    "desert": _desert,
    "stage": _stage,
    "meadow": _meadow,
}
BACKGROUNDS = tuple(name for name in _PAINTERS if name != "meadow")


def paint_background(name: str, rng: np.random.Generator) -> Canvas:
    """A fresh canvas with that place on it.

    Raises:
        KeyError: the name is not "meadow" and not in `BACKGROUNDS`.
    """
    canvas = Canvas.blank(SIZE)
    _PAINTERS[name](canvas, rng)
    return canvas
