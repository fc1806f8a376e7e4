"""The PushT demonstrator: straight pushes, sampled at random and tried in a copy of the physics first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError
from .episode import Act, Demonstration, Env, Observation, record, split_seed
from .pusht import PushT, Simulator, place, simulator

Points = NDArray[np.float64]

# The block in its own frame (px): a bar and a stem, as gym-pusht builds them.
BAR = ((-60.0, 0.0), (60.0, 30.0))
STEM = ((-15.0, 30.0), (15.0, 120.0))
OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], dtype=np.float64
)
HULL = np.array([(-60, 0), (60, 0), (60, 30), (15, 120), (-15, 120), (-60, 30)], dtype=np.float64)
FINGER = 15.0
GYRATION = 45.0
"""Lever (px) that turns an angle error into a distance in the planner's cost."""

RING = 14.0
"""Clearance (px) of the way around the block's hull."""
CLEAR = 3.0
"""Clearance (px) below which a way counts as touching the block."""
STRIDE = 18.0
"""Pixels a tick on the way to a push."""
TRIALS = 96
"""Pushes tried per decision."""
REACH = 24
"""Longest push, in ticks."""
WORSE = 12.0
"""A trial ends once its error (px) is this much above its best: the push has gone too far."""
HASTE = 30.0
"""Ticks added to a push's duration when its gain per tick is compared; more favours large gains over quick ones."""
NEAR = 30.0
"""Error (px) below which pushes are slow."""
FAST, SLOW = 8.0, 4.0
"""Speed of a push (px a tick)."""
CENTRE = np.array([0.0, 40.7])
"""The block's centre of area (px, block frame)."""


def _normals(polygon: Points) -> Points:
    """Return the outward normals [E, 2] of a polygon [E, 2] whose interior lies left of its edges."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    return np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1, keepdims=True)


def _distance(points: Points) -> Points:
    """Return the distance [...] of `points` [..., 2] (block frame) to the block, 0 inside."""
    boxes = [np.maximum(np.maximum(np.array(low) - points, points - np.array(high)), 0.0) for low, high in (BAR, STEM)]
    return np.minimum(*(np.linalg.norm(b, axis=-1) for b in boxes))


def _hull_distance(points: Points) -> Points:
    """Return how far `points` [..., 2] lie outside the hull's farthest edge line (negative inside)."""
    return np.max(np.sum((points[..., None, :] - HULL) * _normals(HULL), axis=-1), axis=-1)


def _ring() -> Points:
    """Return the corners [6, 2] of the hull grown by the finger and `RING`, its edges moved outwards."""
    n = _normals(HULL)
    offset = np.sum(HULL * n, axis=1) + FINGER + RING
    return np.stack(
        [np.linalg.solve(np.stack([n[i - 1], n[i]]), np.array([offset[i - 1], offset[i]])) for i in range(6)]
    )


def _push_lines() -> tuple[Points, Points]:
    """Return (starts [P, 2], directions [P, 2]) of all pushes in the block frame, each start outside the ring."""
    starts: list[Points] = []
    directions: list[Points] = []
    for corner, edge, normal in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0) - OUTLINE, _normals(OUTLINE), strict=True):
        length = float(np.linalg.norm(edge))
        for u in np.arange(3.0, length, 6.0):
            for turn in np.radians([-30.0, -15.0, 0.0, 15.0, 30.0]):
                c, s = np.cos(turn), np.sin(turn)
                away = np.array([c * normal[0] - s * normal[1], s * normal[0] + c * normal[1]])
                line = corner + u / length * edge + normal * (FINGER + 2.0) + np.arange(0.0, 120.0, 2.0)[:, None] * away
                outside = np.flatnonzero(_hull_distance(line) >= FINGER + 2.0)
                if len(outside) and np.all(_distance(line[: outside[0] + 1]) >= FINGER + 1.5):
                    starts.append(line[outside[0]])
                    directions.append(-away)
    return np.array(starts), np.array(directions)


CORNERS = _ring()
STARTS, DIRECTIONS = _push_lines()


@dataclass(frozen=True)
class Pose:
    """Where the block is: px and rad."""

    x: float
    y: float
    angle: float

    @classmethod
    def of(cls, sim: Simulator) -> "Pose":
        """Return the pose of the block in a simulator."""
        x, y = sim.block.position
        return cls(x, y, sim.block.angle)

    def world(self, points: Points, *, free: bool = False) -> Points:
        """Return block-frame `points` [..., 2] in the world; only turned, as directions are, when `free`."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[c, s], [-s, c]])
        return turned if free else turned + np.array([self.x, self.y])

    def local(self, points: Points) -> Points:
        """Return world `points` [..., 2] in the block frame."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return (points - np.array([self.x, self.y])) @ np.array([[c, -s], [s, c]])

    def error(self, goal: "Pose") -> float:
        """Return the distance (px) to `goal`: of the centres, and of the turn at the lever `GYRATION`."""
        dx = self.x - goal.x - float(CENTRE[1]) * (np.sin(self.angle) - np.sin(goal.angle))
        dy = self.y - goal.y + float(CENTRE[1]) * (np.cos(self.angle) - np.cos(goal.angle))
        return float(np.sqrt(dx * dx + dy * dy + 2 * GYRATION**2 * (1 - np.cos(self.angle - goal.angle))))


GOAL = Pose(256.0, 256.0, np.pi / 4)


@dataclass(frozen=True)
class Push:
    """A straight push in the world: from `start` (px) along `direction` over `length` px at `speed` px a tick."""

    start: Points
    direction: Points
    length: float
    speed: float
    end: Pose

    @property
    def targets(self) -> Iterator[Points]:
        """The finger's targets, one a tick."""
        for k in range(1, int(np.ceil(self.length / self.speed)) + 1):
            yield self.start + self.direction * min(self.length, k * self.speed)


@lru_cache
def _profile(speed: float, ticks: int) -> list[float]:
    """Return the finger's speed (px/s) in each of 10 x `ticks` steps of 0.01 s, its target moving `speed` px a tick."""
    position, velocity, speeds = 0.0, 0.0, list[float]()
    for step in range(10 * ticks):
        target = (step // 10 + 1) * speed
        velocity += (100.0 * (target - position) - 20.0 * velocity) * 0.01
        position += velocity * 0.01
        speeds.append(velocity)
    return speeds


def _try(scratch: Simulator, pose: Pose, push: Push) -> tuple[float, float, Pose]:
    """Return (lowest error, length, pose there) along a push of unlimited length."""
    place(scratch, [*push.start, pose.x, pose.y, pose.angle])
    agent, space = scratch.agent, scratch.space
    dx, dy = push.direction
    best, travelled = (np.inf, 0.0, pose), 0.0
    for i, v in enumerate(_profile(push.speed, REACH)):
        agent.velocity = (v * dx, v * dy)
        space.step(0.01)
        travelled += v * 0.01
        if i % 5 == 4:
            here = Pose.of(scratch)
            error = here.error(GOAL)
            if error < best[0]:
                best = (error, travelled, here)
            elif error > best[0] + WORSE:
                break
    return best


def _clear(a: Points, b: Points) -> bool:
    """Return whether the finger can go from `a` to `b` (block frame) without touching the block."""
    n = int(np.linalg.norm(b - a) / 4.0) + 2
    distances = _distance(a + np.linspace(0.0, 1.0, n)[:, None] * (b - a))
    return bool(np.all(distances >= min(FINGER + CLEAR, distances[0], distances[-1]) - 0.1))


def _way(pose: Pose, a: Points, b: Points) -> Points:
    """Return the waypoints [W, 2] (world) of a short way from `a` to `b` (world) around the block."""
    start, end = pose.local(a), pose.local(b)
    if _clear(start, end):
        return np.stack([a, b])
    ways: list[tuple[float, Points]] = []
    first, last = _leave(start), _leave(end)
    for corners in _both_ways(first, last):
        points = [start, first, *corners, last, end]
        kept = [start]
        i = 0
        while i < len(points) - 1:
            i = next((j for j in range(len(points) - 1, i + 1, -1) if _clear(points[i], points[j])), i + 1)
            kept.append(points[i])
        way = pose.world(np.stack(kept))
        outside = float(np.sum(np.abs(way - np.clip(way, 0.0, 512.0))))
        ways.append((float(np.sum(np.linalg.norm(np.diff(way, axis=0), axis=1))) + 10.0 * outside, way))
    return min(ways, key=lambda pair: pair[0])[1]


def _leave(point: Points) -> Points:
    """Return the nearest point on the ring for a `point` inside it, else the point itself."""
    n = _normals(HULL)
    gaps = FINGER + RING - np.sum((point - HULL) * n, axis=1)
    edge = int(np.argmin(gaps))
    return point + max(0.0, float(gaps[edge])) * n[edge]


def _both_ways(a: Points, b: Points) -> tuple[list[Points], list[Points]]:
    """Return the ring's corners between `a` and `b`, counter-clockwise and clockwise."""

    def turn(point: Points) -> float:
        """Return how far `point` lies counter-clockwise of `a`, seen from the block's centre."""
        (x, y), (x0, y0) = point - CENTRE, a - CENTRE
        return float((np.arctan2(y, x) - np.arctan2(y0, x0)) % (2 * np.pi))

    order = sorted(CORNERS, key=turn)
    ahead = [c for c in order if turn(c) < turn(b)]
    return ahead, [c for c in reversed(order) if turn(c) >= turn(b)]


def _decide(scratch: Simulator, sim: Simulator, rng: np.random.Generator) -> tuple[Push, Points]:
    """Return the push with the best gain per time among random ones, and the way [W, 2] to its start."""
    pose = Pose.of(sim)
    finger = np.array(sim.agent.position)
    error = pose.error(GOAL)
    speed = FAST if error > NEAR else SLOW
    picks = rng.choice(len(STARTS), TRIALS, replace=False)
    starts, directions = pose.world(STARTS[picks]), pose.world(DIRECTIONS[picks], free=True)
    tried: list[Push] = []
    gains: list[float] = []
    for start, direction in zip(starts, directions, strict=True):
        if np.any(start < 2.0) or np.any(start > 510.0):
            continue
        push = Push(start, direction, 0.0, speed, pose)
        lowest, length, end = _try(scratch, pose, push)
        tried.append(Push(start, direction, length, speed, end))
        gains.append(error - lowest)
    options: list[tuple[float, Push, Points]] = []
    for i in np.argsort(gains)[-8:]:
        way = _way(pose, finger, tried[i].start)
        ticks = np.sum(np.linalg.norm(np.diff(way, axis=0), axis=1)) / STRIDE + tried[i].length / speed + 6.0
        options.append((gains[i] / (ticks + HASTE), tried[i], way))
    _, push, way = max(options, key=lambda option: option[0])
    return push, way


def _along(way: Points) -> Iterator[Points]:
    """Return targets at most `STRIDE` px apart along the polyline `way` [W, 2], without its first point."""
    for a, b in pairwise(way):
        n = max(1, int(np.ceil(np.linalg.norm(b - a) / STRIDE)))
        for k in range(1, n + 1):
            yield a + k / n * (b - a)


def _settle(sim: Simulator, target: Points, tolerance: float) -> Iterator[Points]:
    """Return `target` again until the finger is within `tolerance` px of it, at most 8 times."""
    for _ in range(8):
        if np.linalg.norm(np.array(sim.agent.position) - target) < tolerance:
            return
        yield target


def targets(sim: Simulator, rng: np.random.Generator) -> Iterator[Points]:
    """Return the finger's targets (px), one a tick, read while `sim` is stepped with them."""
    scratch = simulator(64)
    while True:
        push, way = _decide(scratch, sim, rng)
        yield from _along(way)
        yield from _settle(sim, push.start, 1.0)
        end = push.start
        for end in push.targets:
            yield end
        yield from _settle(sim, end, 1.0)


def driver(sim: Simulator, rng: np.random.Generator) -> Callable[[Observation], NDArray[np.float32]]:
    """Return a demonstrator of `sim` (observation -> action [2], px), its pushes drawn from `rng`.

    It looks at the simulator itself rather than at the observation, which holds no velocities.
    """
    plan = targets(sim, rng)

    def act(_: Observation) -> NDArray[np.float32]:
        return np.clip(next(plan), 0.0, 512.0).astype(np.float32)

    return act


def demonstrator(env: Env, rng: np.random.Generator) -> Act:
    """Return one demonstrator of a `PushT`, its choices drawn from `rng`."""
    if not isinstance(env.unwrapped, PushT):
        raise TaskError(f"expected an environment of PushT to demonstrate in, got {env.unwrapped}")
    return driver(env.unwrapped.sim, rng)


def demonstrate(seed: int, *, make: Callable[[], PushT] = PushT) -> Demonstration:
    """Return one demonstrated episode; `seed` fixes the layout and, independently, the demonstrator's choices."""
    layout, rng = split_seed(seed)
    env = make()
    return record(env, layout, demonstrator(env, rng))
