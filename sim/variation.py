"""What differs from scene to scene and from frame to frame, as data.

A `Family` is what collection draws from: ranges, stored with the dataset. A `Shift` is what an evaluation changes, one factor
at a time, inside the family that the shipped model was trained on or outside it. Knows no physics and no rendering.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np

from sim.scenes import COLOURS, CUBE_HALF, CUBE_KG, TEXTURES, Appearance

Inside = Literal["table", "floor", "cube", "arm", "light", "cameras", "family"]
Outside = Literal["shadows", "textures", "distractors", "camera_8cm", "cube_size", "cube_mass", "friction", "noise", "latency"]
Shift = Literal["none", "colour", "camera", Inside, Outside]
INSIDE, OUTSIDE = get_args(Inside), get_args(Outside)
SHIFTS: tuple[str, ...] = ("none", "colour", "camera", *INSIDE, *OUTSIDE)
Range = tuple[float, float]
CLEAR_M = 0.09  # [m] between the middles of the cube, its goal, the tip and each other object


@dataclass(frozen=True)
class Body:
    """The cube and what it slides on, as the physics has them."""

    half_m: float = CUBE_HALF
    mass_kg: float = CUBE_KG
    friction: float = 1.0  # times that of cube and table


@dataclass(frozen=True)
class Variation:
    """One scene's difference from the nominal one."""

    appearance: Appearance = Appearance()
    body: Body = Body()
    latency_s: float = 0.0  # [s] from a frame's capture until the command that it leads to is sent
    others: tuple[tuple[float, float, float], ...] = ()  # x, y [m] and yaw [rad] of objects beside the cube


@dataclass(frozen=True)
class Family:
    """What collection draws from: looks for every frame, bodies for every episode. Ranges are uniform."""

    name: str
    nominal_share: float = 0.4  # of the frames look as Appearance() does
    colour: Range = (0.1, 0.95)  # of table and floor, each channel
    cube_spread: float = 0.12  # about its own colour, each channel
    arm_grey: Range = (0.5, 0.95)
    arm_spread: float = 0.08
    light: Range = (0.45, 0.95)
    ambient: Range = (0.2, 0.5)
    light_low: tuple[float, float, float] = (-0.3, -1.0, 1.3)  # [m] position of the lamp
    light_high: tuple[float, float, float] = (1.3, 1.0, 2.5)
    front_m: float = 0.04  # [m] by which the front camera is moved along each axis, at most
    front_rad: float = 0.03
    wrist_m: float = 0.008
    wrist_rad: float = 0.03
    textures: tuple[str, ...] = ("squares",)  # of the table
    floor_textures: tuple[str, ...] = ("plain",)
    shadow_share: float = 0.0  # of the varied frames; rendering them costs several times as much
    noise: float = 0.0  # [grey levels] at most
    half_m: Range = (CUBE_HALF, CUBE_HALF)
    mass_kg: Range = (CUBE_KG, CUBE_KG)
    friction: Range = (1.0, 1.0)  # times that of cube and table
    latency_s: Range = (0.0, 0.0)
    others: int = 0  # objects beside the cube, at most; of any colour

    def to_json(self) -> dict:
        return asdict(self)

    def frame(self, rng: np.random.Generator) -> Appearance:
        """The look of one frame: nominal, or varied."""
        return Appearance() if rng.random() < self.nominal_share else self.look(rng)

    def look(self, rng: np.random.Generator) -> Appearance:
        """A varied look."""
        colour = lambda: tuple(rng.uniform(*self.colour, 3))  # noqa: E731
        table = colour()
        while table[0] - max(table[1], table[2]) > 0.35:  # a red cube on a red table is nobody's table
            table = colour()
        cube = np.clip(np.array(COLOURS["red"]) + rng.uniform(-self.cube_spread, self.cube_spread, 3), 0, 1)
        look = Appearance(
            table=table,
            floor=colour(),
            cube=tuple(cube),
            arm=tuple(np.clip(rng.uniform(*self.arm_grey) + rng.uniform(-self.arm_spread, self.arm_spread, 3), 0, 1)),
            light=rng.uniform(*self.light),
            ambient=rng.uniform(*self.ambient),
            light_position=tuple(rng.uniform(low, high) for low, high in zip(self.light_low, self.light_high, strict=True)),
            front_offset=tuple(rng.uniform(-self.front_m, self.front_m, 3)),
            front_turn=tuple(rng.uniform(-self.front_rad, self.front_rad, 3)),
            wrist_offset=tuple(rng.uniform(-self.wrist_m, self.wrist_m, 3)),
            wrist_turn=tuple(rng.uniform(-self.wrist_rad, self.wrist_rad, 3)),
        )
        if self.textures != ("squares",) or self.floor_textures != ("plain",):
            textures = {"table_texture": str(rng.choice(self.textures)), "floor_texture": str(rng.choice(self.floor_textures))}
            look = replace(look, **textures)
        if self.shadow_share:
            look = replace(look, shadow=bool(rng.random() < self.shadow_share))
        if self.noise:
            look = replace(look, noise=rng.uniform(0, self.noise))
        return replace(look, others=(colour(), colour())) if self.others else look

    def bodies(self, rng: np.random.Generator) -> tuple[Body, float, int]:
        """An episode's cube and friction, its latency [s], and how many objects lie beside the cube."""
        if not self.varies_bodies:
            return Body(), 0.0, 0
        body = Body(rng.uniform(*self.half_m), rng.uniform(*self.mass_kg), rng.uniform(*self.friction))
        return body, rng.uniform(*self.latency_s), int(rng.integers(0, self.others + 1))

    @property
    def varies_bodies(self) -> bool:
        ranges = (self.half_m, self.mass_kg, self.friction, self.latency_s)
        return self.others > 0 or any(low < high for low, high in ranges)


PLAIN = Family("plain")  # of the shipped model
WIDE = Family(
    "wide",
    textures=TEXTURES,
    floor_textures=TEXTURES,
    noise=8.0,
    half_m=(0.021, 0.029),
    mass_kg=(0.08, 0.30),
    friction=(0.6, 1.5),
    latency_s=(0.0, 0.06),
    others=2,
)
SHADOWS = replace(WIDE, name="shadows", shadow_share=0.5)
FAMILIES = {family.name: family for family in (PLAIN, WIDE, SHADOWS)}


def vary(shift: str, rng: np.random.Generator, clear_of: tuple[np.ndarray, ...] = ()) -> Variation:
    """The scene of an evaluation. `clear_of`: places (x, y) that other objects keep away from. ValueError: no such shift."""
    if shift not in SHIFTS:
        raise ValueError(f"Shift '{shift}' is unknown. Available: {', '.join(SHIFTS)}.")
    if shift == "none":
        return Variation()
    if shift == "camera":
        direction = _directions(rng, 2)
        return Variation(Appearance(front_offset=tuple(0.03 * direction[0]), wrist_offset=tuple(0.005 * direction[1])))
    if shift == "distractors":
        return Variation(others=scatter(rng, 2, clear_of))
    if shift == "camera_8cm":
        return Variation(Appearance(front_offset=tuple(0.08 * _directions(rng, 1)[0])))
    look = PLAIN.look(rng)
    changed = {
        "colour": ("table",),
        "table": ("table",),
        "floor": ("floor",),
        "cube": ("cube",),
        "arm": ("arm",),
        "light": ("light", "ambient", "light_position"),
        "cameras": ("front_offset", "front_turn", "wrist_offset", "wrist_turn"),
    }
    if shift == "family":
        return Variation(look)
    if shift in changed:
        return Variation(replace(Appearance(), **{name: getattr(look, name) for name in changed[shift]}))
    either = lambda low, high: float(rng.choice([low, high]))  # noqa: E731
    if shift == "shadows":  # of a lamp that stands low
        side = rng.uniform(-np.pi, np.pi)
        lamp = (0.47 + 1.2 * np.cos(side), 1.2 * np.sin(side), 1.1)
        return Variation(Appearance(shadow=True, light=0.95, ambient=0.2, light_position=lamp))
    if shift == "textures":
        table, floor = map(str, rng.choice(TEXTURES[1:], 2))
        return Variation(Appearance(table_texture=table, floor_texture=floor))
    if shift == "noise":
        return Variation(Appearance(noise=12.0))
    if shift == "latency":
        return Variation(latency_s=0.01 * int(rng.integers(4, 9)))
    body = {
        "cube_size": Body(half_m=either(0.020, 0.030)),
        "cube_mass": Body(mass_kg=either(0.05, 0.45)),
        "friction": Body(friction=either(0.5, 1.8)),
    }
    return Variation(body=body[shift])


def scatter(rng: np.random.Generator, count: int, clear_of: tuple[np.ndarray, ...]) -> tuple[tuple[float, float, float], ...]:
    """Places on the table for so many objects, away from those given and from each other."""
    found: list[tuple[float, float, float]] = []
    clear_m = CLEAR_M
    while len(found) < count:
        clear_m *= 0.999  # a crowded table gives way
        place = rng.uniform([0.32, -0.26], [0.62, 0.26])
        taken = [*clear_of, *(np.array(other[:2]) for other in found)]
        if all(np.linalg.norm(place - np.asarray(other)[:2]) > clear_m for other in taken):
            found.append((float(place[0]), float(place[1]), float(rng.uniform(-np.pi, np.pi))))
    return tuple(found)


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors (count, 3)."""
    direction = rng.normal(size=(count, 3))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)
