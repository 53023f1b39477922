"""The data set `drawn`: streets by the water, drawn on demand. No files, no downloads, the same pixels everywhere.

A scene is a pure function of (`VERSION`, split, index). Its labels are exact, for picture and labels come from the same
strokes. It is made so that colour alone does not tell the classes apart: water mirrors the sky, walls share their greys
with the road, trees their greens with the meadow, boats their white with the clouds. What tells them apart is place,
shape and texture, so a network gains from more capacity and a wider view. Persons and poles are small, thin and rare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import cv2
import numpy as np

from benchmark.spec.definitions import IGNORE

VERSION = 1
"""Raised by hand whenever a pixel of any scene changes."""

CLASSES = ("sky", "water", "road", "meadow", "building", "tree", "vehicle", "person", "pole")
SKY, WATER, ROAD, MEADOW, BUILDING, TREE, VEHICLE, PERSON, POLE = range(len(CLASSES))
"""`pole` is masts and fences (wires count as what is behind them), boats are vehicles, trunks belong to trees."""


PALETTE = (
    (126, 180, 222),
    (44, 96, 168),
    (110, 100, 116),
    (168, 206, 112),
    (214, 158, 110),
    (52, 122, 74),
    (206, 66, 66),
    (246, 200, 70),
    (70, 50, 80),
)
"""RGB of each class, for label pictures."""

SIZE = (96, 128)
"""Height and width."""

COUNTS = {"train": 300, "val": 80}
"""Scenes per split."""

Colour = np.ndarray | tuple[float, ...]
Point = tuple[float, float]

_MOODS = (  # sky above, sky at the horizon, light, fog
    ((66, 124, 200), (178, 208, 232), (1.0, 1.0, 0.98), 0.3),  # noon
    ((142, 150, 160), (198, 200, 200), (0.84, 0.87, 0.9), 0.5),  # overcast
    ((104, 102, 160), (248, 178, 118), (1.0, 0.82, 0.66), 0.4),  # sunset
    ((48, 60, 110), (128, 116, 152), (0.58, 0.6, 0.76), 0.4),  # dusk
    ((176, 186, 194), (222, 220, 212), (0.9, 0.9, 0.88), 0.85),  # mist
)
_GREENS = ((74, 124, 52), (104, 140, 60), (52, 100, 58), (150, 150, 70), (178, 122, 52))
_WALLS = ((120, 120, 124), (206, 198, 184), (176, 108, 84), (200, 172, 120), (150, 164, 176), (128, 144, 106))
_ROOFS = ((140, 70, 52), (84, 78, 84), (104, 92, 80))
_ASPHALTS = ((112, 112, 116), (132, 128, 122), (92, 92, 98))
_PAINTS = ((190, 48, 44), (44, 88, 160), (228, 228, 226), (50, 52, 58), (118, 120, 124), (70, 118, 70), (222, 174, 60))
_COATS = ((214, 60, 70), (240, 190, 60), (44, 150, 160), (190, 80, 160), (70, 90, 190), (236, 232, 226))

_TEXTURE = np.array(  # how much grain, blotches and streaks each class shows, of 255 grey levels
    [(0, 5, 2), (4, 4, 34), (10, 6, 3), (16, 16, 18), (6, 6, 0), (34, 26, 0), (4, 4, 0), (6, 0, 0), (6, 0, 0)]
    + [(0, 0, 0)] * (256 - len(CLASSES)),
    np.float32,
)


@lru_cache(maxsize=sum(COUNTS.values()))
def draw_scene(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene `index` of `split`.

    Returns:
        The RGB picture (H, W, 3) and its labels (H, W), both uint8 and read-only; 255 is void.
    """
    key = np.array([VERSION << 32 | list(COUNTS).index(split), index], np.uint64)
    image, labels = _Scene(np.random.Generator(np.random.Philox(key=key))).draw()
    image.flags.writeable = labels.flags.writeable = False
    return image, labels


class _Scene:
    """One scene while it is drawn, far things first.

    The ground is a plane seen from `eye` metres above it. A point on it is given by its distance `x` from the middle of
    the road, in metres, and its nearness `s`: 0 at the horizon, 1 at the lower border of the picture.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        h, w = SIZE
        self.rng = rng
        self.image = np.zeros((h, w, 3), np.uint8)
        self.labels = np.zeros((h, w), np.uint8)
        above, below, light, fog = _MOODS[rng.integers(len(_MOODS))]
        jitter = rng.uniform(0.88, 1.12, 3)
        self.above, self.below = np.multiply(above, jitter), np.multiply(below, jitter)
        self.light = np.multiply(light, rng.uniform(0.85, 1.1)).tolist()
        self.fog = fog * rng.uniform(0.6, 1.1)
        self.horizon = h * rng.uniform(0.3, 0.5)
        self.eye = rng.uniform(1.9, 3.0)
        self.middle = (w * rng.uniform(0.25, 0.75, 2)).tolist()  # of the road, at the horizon and below
        self.bend = w * rng.uniform(-0.35, 0.35)
        self.half = rng.uniform(2.2, 3.4)  # the road's half width
        self.sea = rng.choice([-1, 0, 1], p=[0.35, 0.3, 0.35])  # its side
        self.shore = rng.uniform(5.5, 11.0)

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """All strokes, then texture and camera noise."""
        self._sky()
        self._hills()
        self._ground()
        things: list[tuple[float, Callable[[float], None]]] = []
        for draw, most, far, near in (
            (self._house, 7, 0.1, 0.45),
            (self._tree, 8, 0.1, 0.7),
            (self._boat, 3 * abs(self.sea), 0.1, 0.45),
            (self._car, 4, 0.15, 0.85),
            (self._person, 6, 0.4, 1.0),
            (self._billboard, 1, 0.2, 0.5),
        ):
            things += [(s, draw) for s in self.rng.uniform(far, near, self.rng.integers(most + 1))]
        things += self._row(self._mast, 4, chance=0.6) + self._row(self._fence, 9, chance=0.4)
        for s, thing in sorted(things, key=lambda pair: pair[0]):
            thing(s)
        if self.rng.random() < 0.25:
            self._bonnet()
        return self._photograph(), self.labels

    # Strokes: on the ground plane, in metres ----------------------------------------------------------------------

    def at(self, x: float, s: float, y: float = 0.0) -> Point:
        """The pixel `y` metres above the ground point (`x`, `s`)."""
        far, near = self.middle
        middle = far + (near - far) * s + self.bend * s * (1 - s)
        return middle + x * self.scale(s), self.horizon + s * (SIZE[0] - self.horizon) - y * self.scale(s)

    def scale(self, s: float) -> float:
        """Pixels per metre at nearness `s`."""
        return s * (SIZE[0] - self.horizon) / self.eye

    def lit(self, colour: Colour, s: float, shade: float = 1.0) -> tuple[float, ...]:
        """`colour` in the light of this scene, and in its haze where it is far."""
        haze = self.fog * max(0.0, 1 - s / 0.7) ** 2
        mixed = zip(colour, self.light, self.below, strict=True)
        return tuple(min(255.0, c * light * shade * (1 - haze) + far * haze) for c, light, far in mixed)

    def fill(self, pixels: Sequence[Point], colour: Colour, label: int | None = None) -> None:
        """Fill a polygon of pixels; without a label in the picture only."""
        corners = np.rint(pixels).astype(np.int32)
        cv2.fillPoly(self.image, [corners], tuple(colour))
        if label is not None:
            cv2.fillPoly(self.labels, [corners], label)

    def shape(
        self, s: float, points: Sequence[Point], colour: Colour, label: int | None = None, shade: float = 1
    ) -> None:
        """Fill an upright polygon of points (x, y) that faces us."""
        self.fill([self.at(x, s, y) for x, y in points], self.lit(colour, s, shade), label)

    def box(self, s: float, x: Point, y: Point, colour: Colour, label: int | None = None, shade: float = 1) -> None:
        """Fill an upright rectangle that faces us."""
        self.shape(s, [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], colour, label, shade)

    def ball(self, s: float, x: float, y: float, radii: Point, colour: Colour, label: int, shade: float = 1) -> None:
        """Fill an ellipse that faces us."""
        middle = np.rint(self.at(x, s, y)).astype(int).tolist()
        axes = np.maximum(np.rint(np.multiply(radii, self.scale(s))), 1).astype(int).tolist()
        cv2.ellipse(self.image, middle, axes, 0, 0, 360, self.lit(colour, s, shade), -1)
        cv2.ellipse(self.labels, middle, axes, 0, 0, 360, label, -1)

    def line(
        self, s: float, p: Point, q: Point, wide: float, colour: Colour, label: int | None = None, to: float = 0
    ) -> None:
        """Draw a line from (x, y) at nearness `s` to another, at nearness `to` if given; at least a pixel wide."""
        start, end = (np.rint(self.at(x, t, y)).astype(int).tolist() for (x, y), t in ((p, s), (q, to or s)))
        width = max(1, round(wide * self.scale(s)))
        cv2.line(self.image, start, end, self.lit(colour, s), width)
        if label is not None:
            cv2.line(self.labels, start, end, label, width)

    def shadow(self, s: float, x: float, radius: float) -> None:
        """Darken the ground below a thing."""
        mask = np.zeros(SIZE, np.uint8)
        axes = np.maximum(np.rint(np.multiply((radius, radius / 4), self.scale(s))), 1).astype(int).tolist()
        cv2.ellipse(mask, np.rint(self.at(x, s)).astype(int).tolist(), axes, 0, 0, 360, 1, -1)
        self.image[mask > 0] = self.image[mask > 0] // 5 * 3

    def pick(self, colours: Sequence[Colour], spread: float = 14) -> np.ndarray:
        """One of `colours`, varied."""
        return np.add(colours[int(self.rng.integers(len(colours)))], self.rng.uniform(-spread, spread, 3)).clip(0, 255)

    def beside(self, least: float, most: float) -> float:
        """A place between `least` and `most` metres from the road, on a side that is land."""
        return float((-self.sea or self.rng.choice([-1, 1])) * (self.half + self.rng.uniform(least, most)))

    # Backdrop -----------------------------------------------------------------------------------------------------

    def _sky(self) -> None:
        h, w = SIZE
        self.image[:] = self._gradient(self.above, self.below, self.horizon)[:, None]
        for _ in range(self.rng.integers(5)):
            x, y, r = self.rng.uniform((0, 0, 5), (w, 0.9 * self.horizon, 16))
            white = tuple(np.clip(self.below * self.rng.uniform(1.0, 1.2), 0, 255))
            for dx, dy in self.rng.uniform(-1, 1, (4, 2)):
                puff = [round(x + dx * r), round(y + dy * 2)], [round(0.6 * r), round(0.25 * r)]
                cv2.ellipse(self.image, *puff, 0, 0, 360, white, -1)

    def _gradient(self, start: np.ndarray, end: np.ndarray, rows: float) -> np.ndarray:
        """The colour of every picture row: `start` to `end` over `rows`, then on with `end`."""
        t = np.clip(np.arange(SIZE[0]) / rows, 0, 1)[:, None]
        return np.clip(start + (end - start) * t, 0, 255).astype(np.uint8)

    def _hills(self) -> None:
        xs = np.linspace(0, SIZE[1], 9)
        for ridge in range(self.rng.integers(3)):
            tops = self.horizon - self.rng.uniform(0, 16 - 7 * ridge, len(xs))
            foot = [(SIZE[1], self.horizon + 2), (0, self.horizon + 2)]
            self.fill([*zip(xs, tops, strict=True), *foot], self.lit(self.pick(_GREENS), 0.12 + 0.14 * ridge), TREE)

    def _ground(self) -> None:
        h, w = SIZE
        steps = np.linspace(0, 1.05, 14)
        green, grey = self.pick(_GREENS), self.pick(_ASPHALTS, 8)
        for s in steps[:-1]:
            y = self.at(0, s)[1]
            self.fill([(0, y), (w, y), (w, h), (0, h)], self.lit(green, s, 1.1), MEADOW)
        if self.sea:
            waves = self.rng.uniform(-1, 1, len(steps))
            coast = [self.at(self.sea * (self.shore + wave), s) for s, wave in zip(steps, waves, strict=True)]
            mask, out = np.zeros(SIZE, np.uint8), self.sea * 9 * w  # well outside, for a polygon's border is filled too
            cv2.fillPoly(mask, [np.rint([*coast, (out, h), (out, self.horizon)]).astype(np.int32)], 1)
            mirror = self._gradient(self.below, self.above, h) * self.rng.uniform(0.75, 1.0)
            self.image = np.where(mask[..., None] > 0, mirror[:, None].astype(np.uint8), self.image)
            self.labels[mask > 0] = WATER
        left, right = ([self.at(side * self.half, s) for s in steps] for side in (-1, 1))
        self.fill(left + right[::-1], self.lit(grey, 0.8), ROAD)
        for s, t in zip(steps[1::2], steps[2::2], strict=False):  # lane marks
            mark = [self.at(-0.1, s), self.at(0.1, s), self.at(0.1, t), self.at(-0.1, t)]
            self.fill(mark, self.lit((220, 220, 214), s))

    # Things, at nearness `s` ----------------------------------------------------------------------------------------

    def _house(self, s: float) -> None:
        x, wide, high = self.beside(2, 16), self.rng.uniform(5, 11), self.rng.uniform(3, 9)
        side, back = np.sign(x), s * self.rng.uniform(0.55, 0.8)
        walls, tiles = self.pick(_WALLS), self.pick(_ROOFS)
        top = high + self.rng.uniform(1.5, 3.5) * (self.rng.random() < 0.7)
        out, ridge = x + side * wide, x + side * wide / 2
        flank = [self.at(x, s), self.at(x, back), self.at(x, back, high), self.at(x, s, high)]
        slope = [self.at(x, s, high), self.at(x, back, high), self.at(ridge, back, top), self.at(ridge, s, top)]
        self.fill(flank, self.lit(walls, s, 0.72), BUILDING)
        self.fill(slope, self.lit(tiles, s, 0.9), BUILDING)
        self.shape(s, [(x, 0), (x, high), (ridge, top), (out, high), (out, 0)], walls, BUILDING)
        dark = self.light[2] > 1.2 * self.light[0]
        for y in np.arange(1.0, high - 1.2, 2.4):
            for left in np.arange(0.9, wide - 1.2, 2.0):
                span = (x + side * left, x + side * (left + 0.9))
                self.box(s, span, (y, y + 1.2), (255, 220, 130) if dark else (70, 84, 104), shade=1.5 if dark else 1)

    def _tree(self, s: float) -> None:
        x, high, green = self.beside(0.8, 18), self.rng.uniform(3, 8), self.pick(_GREENS)
        kind = self.rng.choice(["bush", "conifer", "broadleaf"])
        self.shadow(s, x, 0.25 * high)
        if kind == "bush":
            for dx in self.rng.uniform(-1, 1, 4):
                self.ball(s, x + dx, 0.6, (0.9, 0.8), green, TREE)
            return
        self.line(s, (x, 0), (x, 0.6 * high), 0.35, (92, 72, 56), TREE)
        if kind == "conifer":
            for y, r in ((0.2, 0.24), (0.42, 0.19), (0.62, 0.13)):
                tier = [(x - r * high, y * high), (x + r * high, y * high), (x, (y + 0.38) * high)]
                self.shape(s, tier, green, TREE, 0.6 + 0.5 * y)
            return
        for shade in (0.7, 0.85, 0.9, 1.0, 1.12):
            dx, dy, r = self.rng.uniform((-0.16, 0.52, 0.14), (0.16, 0.84, 0.24)) * high
            self.ball(s, x + dx, dy, (r, r), green, TREE, shade)

    def _car(self, s: float) -> None:
        x = self.rng.choice([-0.5, 0.5]) * self.half + self.rng.uniform(-0.3, 0.3)
        half, high = (1.2, 2.9) if self.rng.random() < 0.25 else (0.95, 1.45)
        paint = self.pick(_PAINTS, 24)
        self.shadow(s, x, 1.4 * half)
        for wheel in (x - 0.75 * half, x + 0.75 * half):
            self.box(s, (wheel - 0.15, wheel + 0.15), (0, 0.4), (26, 26, 30), VEHICLE)
        low, top = 0.95 * half, 0.75 * half
        self.shape(s, [(x - low, 0.8), (x + low, 0.8), (x + top, high), (x - top, high)], paint, VEHICLE, 1.1)
        self.box(s, (x - half, x + half), (0.25, 0.95), paint, VEHICLE, 0.92)
        self.box(s, (x - 0.7 * half, x + 0.7 * half), (1.0, min(high, 1.8) - 0.15), (52, 64, 80))
        for lamp in (x - 0.8 * half, x + 0.8 * half):
            self.box(s, (lamp - 0.12, lamp + 0.12), (0.6, 0.75), (250, 240, 190) if x > 0 else (220, 50, 40), shade=1.2)

    def _boat(self, s: float) -> None:
        x = self.sea * (self.shore + self.rng.uniform(3, 30))
        hull = [(x - 2.4, 0.9), (x + 2.6, 1.0), (x + 1.8, 0), (x - 2.0, 0)]
        self.shape(s, hull, self.pick(_PAINTS, 24), VEHICLE)
        self.shape(s, [(x - 0.3, 1.4), (x - 0.3, 5.5), (x + 2.2, 1.5)], (240, 236, 226), VEHICLE)

    def _person(self, s: float) -> None:
        x = self.beside(0.3, 6) if self.rng.random() < 0.7 else self.rng.uniform(-1, 1) * self.half
        tall, coat, legs = self.rng.uniform(1.55, 2.0), self.pick(_COATS, 30), self.pick(_PAINTS, 30)
        step = self.rng.uniform(0.1, 0.3)
        self.shadow(s, x, 0.5)
        for foot in (x - step, x + step):
            self.line(s, (foot, 0), (x, 0.5 * tall), 0.26, 0.6 * legs, PERSON)
        self.box(s, (x - 0.32, x + 0.32), (0.45 * tall, 0.84 * tall), coat, PERSON)
        self.ball(s, x, 0.92 * tall, (0.17, 0.19), (206, 160, 130), PERSON)

    def _row(self, draw: Callable[[float, float, float], None], count: int, chance: float) -> list:
        """`count` equal things along the road, each told how near the next one is."""
        if self.rng.random() > chance:
            return []
        x = self.rng.choice([-1, 1]) * (self.half + self.rng.uniform(0.5, 1.6))
        stands = 1 / np.linspace(self.rng.uniform(1.05, 1.5), 9, count)
        return [(near, partial(draw, x, far)) for near, far in zip(stands, [*stands[1:], 0.08], strict=True)]

    def _mast(self, x: float, to: float, s: float) -> None:
        brown = (96, 84, 74)
        self.line(s, (x, 0), (x, 6.5), 0.42, brown, POLE)
        self.line(s, (x - 0.7, 6.1), (x + 0.7, 6.1), 0.26, brown, POLE)
        for arm in (x - 0.7, x + 0.7):
            self.line(s, (arm, 6.1), (arm, 6.1), 0.02, brown, to=to)

    def _fence(self, x: float, to: float, s: float) -> None:
        wood = (172, 152, 124)
        self.line(s, (x, 0), (x, 1.1), 0.32, wood, POLE)
        for y in (0.5, 0.95):
            self.line(s, (x, y), (x, y), 0.22, wood, POLE, to=to)

    def _billboard(self, s: float) -> None:
        x = self.beside(1, 5)
        for leg in (x - 1, x + 1):
            self.line(s, (leg, 0), (leg, 2), 0.2, (90, 90, 96), POLE)
        self.box(s, (x - 1.6, x + 1.6), (1.8, 3.8), self.pick(_PAINTS, 30), IGNORE)
        self.box(s, (x - 1.2, x + 1.2), (2.4, 2.9), (236, 232, 220))

    def _bonnet(self) -> None:
        h, w = SIZE
        centre, axes = [w // 2, h + 6], [round(0.55 * w), round(self.rng.uniform(12, 18))]
        cv2.ellipse(self.image, centre, axes, 0, 0, 360, self.lit(self.pick(_PAINTS), 1, 0.7), -1)
        cv2.ellipse(self.labels, centre, axes, 0, 0, 360, IGNORE, -1)

    def _photograph(self) -> np.ndarray:
        """The picture with the texture of each class, uneven light, and the camera's blur and noise."""
        h, w = SIZE
        fields = [(h, w), (h // 4, w // 4), (h // 2, w // 12)]  # grain, blotches, streaks
        noise = [self.rng.integers(0, 256, field, np.uint8) for field in fields]
        noise = [cv2.resize(field, (w, h), interpolation=cv2.INTER_LINEAR_EXACT) for field in noise]
        grey = ((np.stack(noise, -1) / np.float32(127.5) - 1) * _TEXTURE[self.labels]).sum(-1, keepdims=True)
        left, right = self.rng.uniform(0.85, 1.12, 2)
        light = np.linspace(left, right, w, dtype=np.float32)[:, None]
        picture = np.clip((self.image + grey) * light, 0, 255).astype(np.uint8)
        picture = cv2.GaussianBlur(picture, (3, 3), 0.6)
        return np.clip(picture + self.rng.integers(-6, 7, picture.shape, np.int16), 0, 255).astype(np.uint8)
