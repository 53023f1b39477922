"""The data set `drawn`: streets by the water, drawn on demand. No files, no downloads, the same pixels everywhere.

A scene is a pure function of (`VERSION`, split, index). Its labels are exact, for picture and labels come from the same
strokes. It is made so that colour alone does not tell the classes apart: water mirrors the sky, walls share their greys
with the road, trees their greens with the meadow, boats their white with the clouds. What tells them apart is place,
shape and texture, so a network gains from more capacity and a wider view. Persons and poles are small, thin and rare.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

VERSION = 1
"""Raised by hand whenever a pixel of any scene changes."""

CLASSES = ("sky", "water", "road", "meadow", "building", "tree", "vehicle", "person", "pole")
SKY, WATER, ROAD, MEADOW, BUILDING, TREE, VEHICLE, PERSON, POLE = range(len(CLASSES))
"""`pole` is masts and fences (wires count as what is behind them), boats are vehicles, trunks belong to trees."""

VOID = 255
"""Billboards and the bonnet of the camera's own car."""

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

Colour = np.ndarray
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
_PAINTS = ((190, 48, 44), (44, 88, 160), (228, 228, 226), (50, 52, 58), (118, 120, 124), (70, 118, 70), (222, 174, 60))
_COATS = ((214, 60, 70), (240, 190, 60), (44, 150, 160), (190, 80, 160), (70, 90, 190), (236, 232, 226))

_TEXTURE = np.array(  # how much grain, blotches and streaks each class shows, of 255 grey levels
    [(0, 5, 2), (4, 4, 34), (10, 6, 3), (16, 16, 18), (6, 6, 0), (34, 26, 0), (4, 4, 0), (6, 0, 0), (6, 0, 0)]
    + [(0, 0, 0)] * (256 - len(CLASSES)),
    np.float32,
)


def draw_scene(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene `index` of `split`.

    Returns:
        The RGB picture (H, W, 3) and its labels (H, W), both uint8; 255 is void.
    """
    key = np.array([VERSION << 32 | list(COUNTS).index(split), index], np.uint64)
    return _Scene(np.random.Generator(np.random.Philox(key=key))).draw()


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
        self.light = np.multiply(light, rng.uniform(0.85, 1.1))
        self.fog = fog * rng.uniform(0.6, 1.1)
        self.horizon = h * rng.uniform(0.3, 0.5)
        self.eye = rng.uniform(1.9, 3.0)
        self.middle = w * rng.uniform(0.25, 0.75, 2)  # of the road, at the horizon and below
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
        things += self._line_of(self._mast, 4, chance=0.6) + self._line_of(self._fence, 9, chance=0.4)
        for s, draw in sorted(things, key=lambda thing: thing[0]):
            draw(s)
        if self.rng.random() < 0.25:
            self._bonnet()
        return self._photograph(), self.labels

    # Strokes -----------------------------------------------------------------------------------------------------

    def at(self, x: float, s: float, y: float = 0.0) -> Point:
        """The pixel `y` metres above the ground point (`x`, `s`)."""
        h, _ = SIZE
        far, near = self.middle
        middle = far + (near - far) * s + self.bend * s * (1 - s)
        return middle + x * self.scale(s), self.horizon + s * (h - self.horizon) - y * self.scale(s)

    def scale(self, s: float) -> float:
        """Pixels per metre at nearness `s`."""
        return s * (SIZE[0] - self.horizon) / self.eye

    def lit(self, colour: Colour | tuple[int, ...], s: float, shade: float = 1.0) -> tuple[float, ...]:
        """`colour` in the light of this scene, and in its haze where it is far."""
        haze = self.fog * max(0.0, 1 - s / 0.7) ** 2
        return tuple(np.clip(np.multiply(colour, self.light) * shade * (1 - haze) + self.below * haze, 0, 255))

    def polygon(self, points: list[Point], colour: tuple[float, ...], label: int | None = None) -> None:
        """Fill a polygon; without a label only in the picture."""
        corners = np.rint(points).astype(np.int32)
        cv2.fillPoly(self.image, [corners], colour)
        if label is not None:
            cv2.fillPoly(self.labels, [corners], label)

    def box(self, low: Point, high: Point, colour: tuple[float, ...], label: int | None = None) -> None:
        """Fill an upright rectangle."""
        self.polygon([low, (high[0], low[1]), high, (low[0], high[1])], colour, label)

    def disc(self, centre: Point, axes: Point, colour: tuple[float, ...], label: int | None = None) -> None:
        """Fill an ellipse."""
        middle, radii = np.rint(centre).astype(int).tolist(), np.maximum(np.rint(axes), 1).astype(int).tolist()
        cv2.ellipse(self.image, middle, radii, 0, 0, 360, colour, -1)
        if label is not None:
            cv2.ellipse(self.labels, middle, radii, 0, 0, 360, label, -1)

    def stroke(
        self, p: Point, q: Point, metres: float, s: float, colour: tuple[float, ...], label: int | None = None
    ) -> None:
        """Draw a line of some width in metres, one pixel at least."""
        ends = [np.rint(end).astype(int).tolist() for end in (p, q)]
        width = max(1, round(metres * self.scale(s)))
        cv2.line(self.image, *ends, colour, width)
        if label is not None:
            cv2.line(self.labels, *ends, label, width)

    def shadow(self, x: float, s: float, metres: float) -> None:
        """Darken the ground below a thing."""
        over = self.image.copy()
        radii = (metres * self.scale(s), max(1.0, 0.25 * metres * self.scale(s)))
        cv2.ellipse(
            over, np.rint(self.at(x, s)).astype(int).tolist(), np.rint(radii).astype(int).tolist(), 0, 0, 360, 0, -1
        )
        self.image = cv2.addWeighted(self.image, 0.6, over, 0.4, 0)

    def pick(self, colours: tuple[tuple[int, ...], ...], spread: float = 14) -> Colour:
        """One of `colours`, varied."""
        return np.add(colours[self.rng.integers(len(colours))], self.rng.uniform(-spread, spread, 3))

    def beside(self, least: float, most: float) -> float:
        """A distance from the road on a side that is land."""
        side = -self.sea or self.rng.choice([-1, 1])
        return float(side * (self.half + self.rng.uniform(least, most)))

    # Things ------------------------------------------------------------------------------------------------------

    def _sky(self) -> None:
        h, w = SIZE
        self.image[:] = self._gradient(self.above, self.below, round(self.horizon))[:, None]
        for _ in range(self.rng.integers(5)):
            x, y, r = self.rng.uniform((0, 0, 5), (w, 0.9 * self.horizon, 16))
            white = tuple(np.clip(self.below * self.rng.uniform(1.0, 1.2), 0, 255))
            for dx, dy in self.rng.uniform(-1, 1, (4, 2)):
                self.disc((x + dx * r, y + dy * 2), (0.6 * r, 0.25 * r), white)

    def _gradient(self, start: Colour, end: Colour, rows: int) -> np.ndarray:
        """The colour of every picture row: `start` to `end` over `rows`, then on with `end`."""
        t = np.clip(np.arange(SIZE[0]) / max(rows, 1), 0, 1)[:, None]
        return np.clip(start + (end - start) * t, 0, 255).astype(np.uint8)

    def _hills(self) -> None:
        w = SIZE[1]
        for ridge in range(self.rng.integers(3)):
            heights = self.rng.uniform(0, 16 - 7 * ridge, 9)
            tops = [(x, self.horizon - y) for x, y in zip(np.linspace(0, w, 9), heights, strict=True)]
            green = self.lit(self.pick(_GREENS), 0.12 + 0.14 * ridge)
            self.polygon([(0, self.horizon + 2), *tops, (w, self.horizon + 2)], green, TREE)

    def _ground(self) -> None:
        h, w = SIZE
        steps = np.linspace(0, 1.05, 14)
        green = self.pick(_GREENS)
        for s in steps[:-1]:
            self.box((0, self.at(0, s)[1]), (w, h), self.lit(green, s, 1.1), MEADOW)
        if self.sea:
            coast = [
                self.at(self.sea * (self.shore + wave), s)
                for s, wave in zip(steps, self.rng.uniform(-1, 1, 14), strict=True)
            ]
            mask = np.zeros(SIZE, np.uint8)
            far = (self.sea * 9 * w, self.horizon)  # well outside: the border column is drawn, too
            cv2.fillPoly(mask, [np.rint([*coast, (far[0], h), far]).astype(np.int32)], 1)
            mirror = self._gradient(self.below, self.above, h)[:, None] * self.rng.uniform(0.75, 1.0)
            self.image = np.where(mask[..., None] > 0, mirror.astype(np.uint8), self.image)
            self.labels[mask > 0] = WATER
        grey = self.pick(((112, 112, 116), (132, 128, 122), (92, 92, 98)), 8)
        left, right = ([self.at(side * self.half, s) for s in steps] for side in (-1, 1))
        self.polygon(left + right[::-1], self.lit(grey, 0.8), ROAD)
        for s, t in zip(steps[1::2], steps[2::2], strict=False):  # lane marks
            marks = [self.at(-0.1, s), self.at(0.1, s), self.at(0.1, t), self.at(-0.1, t)]
            self.polygon(marks, self.lit((220, 220, 214), s))

    def _house(self, s: float) -> None:
        x, wide, high = self.beside(2, 16), self.rng.uniform(5, 11), self.rng.uniform(3, 9)
        side, back = np.sign(x), s * self.rng.uniform(0.55, 0.8)
        wall, roof = self.pick(_WALLS), self.pick(_ROOFS)
        gable = self.rng.uniform(1.5, 3.5) * (self.rng.random() < 0.7)
        out, ridge = x + side * wide, x + side * wide / 2
        corners = [self.at(x, s), self.at(x, back), self.at(x, back, high), self.at(x, s, high)]
        self.polygon(corners, self.lit(wall, s, 0.72), BUILDING)
        slope = [
            self.at(x, s, high),
            self.at(x, back, high),
            self.at(ridge, back, high + gable),
            self.at(ridge, s, high + gable),
        ]
        self.polygon(slope, self.lit(roof, s, 0.9), BUILDING)
        self.polygon(
            [
                self.at(x, s),
                self.at(x, s, high),
                self.at(ridge, s, high + gable),
                self.at(out, s, high),
                self.at(out, s),
            ],
            self.lit(wall, s),
            BUILDING,
        )
        pane = self.lit((250, 214, 120), s, 1.5) if self.light[2] > self.light[0] * 1.2 else self.lit((70, 84, 104), s)
        for y in np.arange(1.0, high - 1.2, 2.4):
            for along in np.arange(0.9, wide - 1.2, 2.0):
                self.box(self.at(x + side * along, s, y), self.at(x + side * (along + 0.9), s, y + 1.2), pane)

    def _tree(self, s: float) -> None:
        x, high, green = self.beside(0.8, 18), self.rng.uniform(3, 8), self.pick(_GREENS)
        kind = self.rng.integers(3)
        self.shadow(x, s, 0.25 * high)
        if kind == 0:  # a bush
            for dx in self.rng.uniform(-1, 1, 4):
                self.disc(self.at(x + dx, s, 0.6), (0.9 * self.scale(s), 0.8 * self.scale(s)), self.lit(green, s), TREE)
            return
        self.stroke(self.at(x, s), self.at(x, s, 0.6 * high), 0.35, s, self.lit((92, 72, 56), s), TREE)
        if kind == 1:  # a conifer
            for y, wide in ((0.2, 0.24), (0.42, 0.19), (0.62, 0.13)):
                tier = [
                    self.at(x - wide * high, s, y * high),
                    self.at(x + wide * high, s, y * high),
                    self.at(x, s, (y + 0.38) * high),
                ]
                self.polygon(tier, self.lit(green, s, 0.6 + 0.5 * y), TREE)
            return
        for shade, dx, dy in zip((0.7, 0.85, 0.9, 1.0, 1.12), *self.rng.uniform(-0.16, 0.16, (2, 5)), strict=True):
            r = self.rng.uniform(0.14, 0.24) * high * self.scale(s)
            self.disc(self.at(x + dx * high, s, (0.68 + dy) * high), (r, r), self.lit(green, s, shade), TREE)

    def _car(self, s: float) -> None:
        x = self.rng.choice([-0.5, 0.5]) * self.half + self.rng.uniform(-0.3, 0.3)
        wide, high = (1.2, 2.9) if self.rng.random() < 0.25 else (0.95, 1.45)
        paint, glass, black = self.pick(_PAINTS, 24), self.lit((52, 64, 80), s), self.lit((26, 26, 30), s)
        self.shadow(x, s, 1.4 * wide)
        for wheel in (-0.75, 0.75):
            self.box(self.at(x + wheel * wide - 0.15, s), self.at(x + wheel * wide + 0.15, s, 0.4), black, VEHICLE)
        cabin = [
            self.at(x - wide * 0.95, s, 0.8),
            self.at(x + wide * 0.95, s, 0.8),
            self.at(x + wide * 0.75, s, high),
            self.at(x - wide * 0.75, s, high),
        ]
        self.polygon(cabin, self.lit(paint, s, 1.1), VEHICLE)
        self.box(self.at(x - wide, s, 0.25), self.at(x + wide, s, 0.95), self.lit(paint, s, 0.92), VEHICLE)
        self.box(self.at(x - wide * 0.7, s, 1.0), self.at(x + wide * 0.7, s, min(high, 1.8) - 0.15), glass)
        lamp = self.lit(((220, 50, 40), (250, 240, 190))[int(x > 0)], s, 1.2)
        for edge in (-0.8, 0.8):
            self.box(self.at(x + edge * wide - 0.12, s, 0.6), self.at(x + edge * wide + 0.12, s, 0.75), lamp)

    def _boat(self, s: float) -> None:
        x = self.sea * (self.shore + self.rng.uniform(3, 30))
        hull = [self.at(x - 2.4, s, 0.9), self.at(x + 2.6, s, 1.0), self.at(x + 1.8, s), self.at(x - 2.0, s)]
        self.polygon(hull, self.lit(self.pick(_PAINTS, 24), s), VEHICLE)
        sail = [self.at(x - 0.3, s, 1.4), self.at(x - 0.3, s, 5.5), self.at(x + 2.2, s, 1.5)]
        self.polygon(sail, self.lit((240, 236, 226), s), VEHICLE)

    def _person(self, s: float) -> None:
        x = self.beside(0.3, 6) if self.rng.random() < 0.7 else self.rng.uniform(-1, 1) * self.half
        tall, coat, legs = self.rng.uniform(1.55, 2.0), self.pick(_COATS, 30), self.pick(_PAINTS, 30)
        self.shadow(x, s, 0.5)
        step = self.rng.uniform(0.1, 0.3)
        for foot in (-step, step):
            self.stroke(self.at(x + foot, s), self.at(x, s, 0.5 * tall), 0.26, s, self.lit(legs, s, 0.7), PERSON)
        self.box(self.at(x - 0.32, s, 0.45 * tall), self.at(x + 0.32, s, 0.84 * tall), self.lit(coat, s), PERSON)
        self.disc(
            self.at(x, s, 0.92 * tall),
            (0.17 * self.scale(s), 0.19 * self.scale(s)),
            self.lit((206, 160, 130), s),
            PERSON,
        )

    def _line_of(self, draw: Callable[[float, float, float], None], count: int, chance: float) -> list:
        """`count` equal things along the road, each told where the next one stands."""
        if self.rng.random() > chance:
            return []
        x = self.rng.choice([-1, 1]) * (self.half + self.rng.uniform(0.5, 1.6))
        stands = 1 / np.linspace(self.rng.uniform(1.05, 1.5), 9, count)
        return [(near, lambda s, t=far: draw(x, s, t)) for near, far in zip(stands, [*stands[1:], 0.08], strict=True)]

    def _mast(self, x: float, s: float, t: float) -> None:
        brown = self.lit((96, 84, 74), s)
        self.stroke(self.at(x, s), self.at(x, s, 6.5), 0.42, s, brown, POLE)
        self.stroke(self.at(x - 0.7, s, 6.1), self.at(x + 0.7, s, 6.1), 0.26, s, brown, POLE)
        for arm in (-0.7, 0.7):
            self.stroke(self.at(x + arm, s, 6.1), self.at(x + arm, t, 6.1), 0.02, s, brown)

    def _fence(self, x: float, s: float, t: float) -> None:
        wood = self.lit((172, 152, 124), s)
        self.stroke(self.at(x, s), self.at(x, s, 1.1), 0.32, s, wood, POLE)
        for y in (0.5, 0.95):
            self.stroke(self.at(x, s, y), self.at(x, t, y), 0.22, s, wood, POLE)

    def _billboard(self, s: float) -> None:
        x = self.beside(1, 5)
        for leg in (-1.0, 1.0):
            self.stroke(self.at(x + leg, s), self.at(x + leg, s, 2), 0.2, s, self.lit((90, 90, 96), s), POLE)
        self.box(self.at(x - 1.6, s, 1.8), self.at(x + 1.6, s, 3.8), self.lit(self.pick(_PAINTS, 30), s), VOID)
        self.box(self.at(x - 1.2, s, 2.4), self.at(x + 1.2, s, 2.9), self.lit((236, 232, 220), s))

    def _bonnet(self) -> None:
        h, w = SIZE
        self.disc((w / 2, h + 6), (0.55 * w, self.rng.uniform(12, 18)), self.lit(self.pick(_PAINTS), 1, 0.7), VOID)

    def _photograph(self) -> np.ndarray:
        """The picture with the texture of each class, uneven light, and the camera's blur and noise."""
        h, w = SIZE
        fields = [(h, w), (h // 4, w // 4), (h // 2, w // 12)]  # grain, blotches, streaks
        noise = [self.rng.integers(0, 256, field, np.uint8) for field in fields]
        noise = [cv2.resize(field, (w, h), interpolation=cv2.INTER_LINEAR_EXACT) for field in noise]
        grey = np.stack(noise, -1).astype(np.float32) / 127.5 - 1
        grey = (grey * _TEXTURE[self.labels]).sum(-1)
        slope = np.linspace(*self.rng.uniform(0.85, 1.12, 2), w, dtype=np.float32)
        picture = (self.image + grey[..., None]) * slope[:, None]
        picture = cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (3, 3), 0.6)
        camera = self.rng.integers(-6, 7, picture.shape, np.int16)
        return np.clip(picture + camera, 0, 255).astype(np.uint8)
