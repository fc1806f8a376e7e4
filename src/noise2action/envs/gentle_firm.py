"""Gentle or firm: a one-axis gripper closes on an object and holds it with the force that words tell (m, N, 20 Hz).

The finger is a mass that a controller pulls towards the commanded opening; the object is a spring and a damper whose
width and stiffness no observation tells, so that the same opening gives another force on every object: only the
measured force says when to stop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

from ..schema import Feature, Schema
from .episode import Act, Demonstration, Observation, box, checked_action, observation_space, record, split_seed, spoken

CONTROL_HZ = 20.0
MAX_STEPS = 120
SUBSTEPS = 20
OPEN = 0.08
"""Opening (m) at which an episode starts, the widest."""
MASS = 0.1
"""Of the finger (kg)."""
SERVO, DRAG = 1000.0, 25.0
"""The controller's stiffness (N/m) and damping (N s/m): somewhat more than critical."""
DAMPING = 3.0
"""Of the object (N s/m)."""
WIDTHS, STIFFNESSES = (0.03, 0.05), (500.0, 1500.0)
"""What the layout draws the object's width (m) and stiffness (N/m) from."""
SENSOR_NOISE = 0.03
"""Standard deviation of a measured force (N)."""
HOLD_STEPS = 10
"""Steps that a force must last to count: half a second."""
CRUSH = 12.0
"""Force (N) at which the object breaks."""


@dataclass(frozen=True)
class Band:
    """Forces (N) that are one grasp."""

    low: float
    high: float

    @property
    def name(self) -> str:
        """What a grasp with such a force is called in results."""
        return f"{self.low:g}-{self.high:g} N"

    @property
    def middle(self) -> float:
        """The force (N) in the middle."""
        return (self.low + self.high) / 2


BANDS: Mapping[str, Band] = {"grasp gently": Band(1.5, 2.5), "grasp firmly": Band(7.0, 9.0)}
"""What may be told, and the force that it asks for."""
INSTRUCTION = Feature("instruction", (1,), kind="text", dtype="int64", sentences=tuple(BANDS))
SCHEMA = Schema(
    observations=(Feature("opening", (1,), unit="m"), Feature("force", (1,), unit="N"), INSTRUCTION),
    action=Feature("action", (1,), unit="m", low=0.0, high=OPEN),
)


@dataclass(frozen=True)
class Grip:
    """Where the finger is, and what it holds."""

    width: float
    """Of the object (m)."""
    stiffness: float
    """Of the object (N/m)."""
    opening: float = OPEN
    """Distance (m) between the fingers."""
    speed: float = 0.0
    """Its rate (m/s); negative while closing."""

    @property
    def force(self) -> float:
        """Force (N) on the object; it pushes and never pulls."""
        depth = self.width - self.opening
        return max(0.0, self.stiffness * depth - DAMPING * self.speed) if depth > 0 else 0.0

    def after(self, command: float, dt: float) -> "Grip":
        """Return the grip `dt` seconds later under the commanded opening (m), by the symplectic Euler method."""
        pull = SERVO * (command - self.opening) - DRAG * self.speed + self.force
        speed = self.speed + pull / MASS * dt
        return Grip(self.width, self.stiffness, self.opening + speed * dt, speed)


class GentleFirm(Env[Observation, NDArray[np.float32]]):
    """A gripper whose action is the commanded opening (m).

    An episode ends once a force of one of `BANDS` lasted half a second: with success if it is the one that is told.
    `info["route"]` names that band, "none" before; more than `CRUSH` ends the episode as a failure. The score is the
    longest time that the told force lasted, as a share of half a second.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    def __init__(self, *, size: int = 256) -> None:
        self.render_mode = "rgb_array"
        self.observation_space = observation_space(SCHEMA)
        self.action_space = box(SCHEMA.action)
        self.size = size
        self._grip = Grip(WIDTHS[0], STIFFNESSES[0])
        self._sentence = ""
        self._observed: Observation = {}
        self._forces: list[float] = []
        self._score = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) with open fingers around the object that `seed` determines.

        `options["instruction"]` sets what is told; an unknown sentence asks for any of the bands.
        """
        super().reset(seed=seed, options=options)
        self._grip = Grip(self.np_random.uniform(*WIDTHS), self.np_random.uniform(*STIFFNESSES))
        self._sentence, self._observed = spoken(INSTRUCTION, self.np_random, options or {})
        self._forces, self._score = [], 0.0
        return self._observation(), self._info("none")

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, reward, terminated, truncated, info) after 0.05 s towards the commanded opening [1]."""
        command = float(checked_action(action, SCHEMA.action)[0])
        for _ in range(SUBSTEPS):
            self._grip = self._grip.after(command, 1 / CONTROL_HZ / SUBSTEPS)
        self._forces.append(self._grip.force)
        asked = [BANDS[self._sentence]] if self._sentence in BANDS else list(BANDS.values())
        self._score = max(self._score, *(min(1.0, self._lasted(band) / HOLD_STEPS) for band in asked))
        held = next((band.name for band in BANDS.values() if self._lasted(band) >= HOLD_STEPS), "none")
        info = self._info(held)
        terminated = held != "none" or self._grip.force > CRUSH
        return self._observation(), float(info["success"]), terminated, len(self._forces) >= MAX_STEPS, info

    def _lasted(self, band: Band) -> int:
        """Return for how many steps, up to the last one, the force has been in `band`."""
        outside = [k for k, force in enumerate(self._forces, 1) if not band.low <= force <= band.high]
        return len(self._forces) - max(outside, default=0)

    def _observation(self) -> Observation:
        grip = self._grip
        measured = {"opening": grip.opening, "force": grip.force + SENSOR_NOISE * self.np_random.standard_normal()}
        seen = {name: np.array([value], np.float32) for name, value in measured.items()}
        return {**seen, **{name: value.copy() for name, value in self._observed.items()}}

    def _info(self, held: str) -> dict[str, Any]:
        success = self._score >= 1.0
        return {"success": success, "score": self._score, "route": held, "instruction": self._sentence}

    def render(self) -> NDArray[np.uint8]:
        """Return fingers and object from the side, and the force of the episode so far over the bands, as uint8."""
        size = self.size
        canvas = np.full((size, size, 3), FLOOR, dtype=np.uint8)
        # Above, a tenth of a metre across.
        metre, middle = size / 0.1, size / 2
        half, squeezed = self._grip.opening * metre / 2, min(self._grip.width, self._grip.opening) * metre / 2
        _fill(canvas, (0.16, 0.36), (middle - squeezed, middle + squeezed), OBJECT)
        for left in (middle - half - 0.06 * size, middle + half):
            _fill(canvas, (0.08, 0.42), (left, left + 0.06 * size), FINGER)
        # Below, force over time: an episode across, zero at the bottom.
        for sentence, band in BANDS.items():
            colour = TOLD if sentence == self._sentence or self._sentence not in BANDS else BAND
            _fill(canvas, (_height(band.high), _height(band.low)), (0.0, float(size)), colour)
        for k, force in enumerate(self._forces):
            column, row = k * size / MAX_STEPS, _height(force)
            _fill(canvas, (row - 0.008, row + 0.008), (column, column + size / MAX_STEPS + 1), FORCE)
        return canvas


FLOOR, OBJECT, FINGER = (248, 248, 246), (214, 160, 92), (88, 92, 104)
BAND, TOLD, FORCE = (228, 228, 224), (168, 214, 186), (38, 98, 178)


def _height(force: float) -> float:
    """Return the share of the picture above the line of a force (N)."""
    return 0.97 - 0.47 * min(force / CRUSH, 1.0)


def _fill(
    canvas: NDArray[np.uint8], rows: tuple[float, float], columns: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    """Paint a rectangle: rows as shares of the height, columns in pixels, one pixel at least."""
    top, bottom = (round(share * len(canvas)) for share in rows)
    left, right = (round(column) for column in columns)
    canvas[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)] = colour


FELT = 0.2
"""Measured force (N) above which there is an object: far outside the noise."""


def _driver(rng: np.random.Generator) -> Callable[[Observation], NDArray[np.float32]]:
    """Return one demonstrator, its speeds, wanted force and unsteady hand drawn from `rng`.

    It closes at its speed until it feels the object, then squeezes in proportion to the force that is missing.
    """
    approach, eagerness = rng.uniform(0.04, 0.08), rng.uniform(0.6, 1.2)
    aim = rng.uniform(-0.4, 0.4)
    command, tremor = OPEN, 0.0
    bands = list(BANDS.values())

    def act(observation: Observation) -> NDArray[np.float32]:
        nonlocal command, tremor
        band = bands[int(observation["instruction"][0])]
        force = float(observation["force"][0])
        wanted = band.middle + aim * (band.high - band.low) / 2
        # A soft object and the controller in series give about 500 N/m; nobody squeezes faster than they close.
        rate = -approach if force < FELT else float(np.clip(eagerness * (force - wanted) / 100, -approach, approach))
        command = float(np.clip(command + rate / CONTROL_HZ, 0.0, OPEN))
        tremor = 0.7 * tremor + 0.00004 * rng.standard_normal()
        return np.array([command + tremor], np.float32).clip(0.0, OPEN)

    return act


def demonstrator(env: Env[Observation, NDArray[np.float32]], rng: np.random.Generator) -> Act:
    """Return one demonstrator, its choices drawn from `rng`."""
    del env
    return _driver(rng)


def demonstrate(seed: int) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes object and words and, independently, speeds and hand."""
    layout, rng = split_seed(seed)
    env = GentleFirm()
    return record(env, layout, demonstrator(env, rng))
