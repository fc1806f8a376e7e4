"""PushT: push a T-shaped block onto its outline with a round finger (px, rad, 10 Hz).

The physics is gym-pusht's. **Source:** Florence et al. 2021 (Implicit Behavioral Cloning); Chi et al. 2023 (Diffusion
Policy), section 5.2, whose state layout (agent xy, block xy, block angle) the observation follows.
"""

from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from gymnasium import Env
from numpy.typing import ArrayLike, NDArray

from ..errors import MissingExtraError, TaskError
from ..schema import Feature, Schema
from .episode import Observation, box, check_asked, checked_action, observation_space, observed

CONTROL_HZ = 10.0
MAX_STEPS = 300
SUCCESS_COVERAGE = 0.95

APART = (50.0, 50.0, 256.0, 256.0, 0.0)
"""A state in which nothing touches."""

SCHEMA = Schema(
    observations=(
        Feature("agent_position", (2,), unit="px"),
        Feature("block_position", (2,), unit="px"),
        Feature("block_angle", (1,), kind="angle", unit="rad", low=0.0, high=2 * np.pi),
    ),
    action=Feature("action", (2,), unit="px", low=0.0, high=512.0),
)


@runtime_checkable
class Simulator(Protocol):
    """What is used of a `gym_pusht` environment: pymunk's space and its two bodies."""

    space: Any
    agent: Any
    block: Any
    _last_action: NDArray[np.float64] | None

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Return (state, info) of a layout, or of `options["reset_to_state"]`."""
        ...

    def step(self, action: NDArray[np.float64]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return gymnasium's five values; `info["coverage"]` is the share of the outline that is covered."""
        ...

    def get_obs(self) -> NDArray[np.float64]:
        """Return the state [5]."""
        ...

    def render(self) -> NDArray[np.uint8]:
        """Return the picture."""
        ...

    def _draw(self) -> Any:  # noqa: ANN401 - pygame's surface
        """Return the scene, drawn."""
        ...

    def _get_img(self, screen: Any, width: int, height: int) -> NDArray[np.uint8]:  # noqa: ANN401
        """Return the drawn scene in other pixels, without the mark of the last target."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def simulator(size: int) -> Simulator:
    """Return a `gym_pusht` environment that renders `size` x `size` pixels; `MissingExtraError` without the extra."""
    try:
        from gym_pusht.envs.pusht import PushTEnv, pymunk_to_shapely  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise MissingExtraError("gym-pusht", "sim") from error

    class Ordered(PushTEnv):
        """Its coverage adds up the block's shapes in the order of a set, so that the last bits differ by chance."""

        def _get_coverage(self) -> float:
            shapes = [shape for shape in self.space.shapes if shape.body is self.block]
            goal = pymunk_to_shapely(self.get_goal_pose_body(self.goal_pose), shapes)
            return goal.intersection(pymunk_to_shapely(self.block, shapes)).area / goal.area

    sim = cast(Simulator, Ordered(obs_type="state", visualization_width=size, visualization_height=size))
    sim.reset(options={"reset_to_state": APART})
    quiet(sim)
    return sim


def quiet(sim: Simulator) -> None:
    """Take the shapes of a reset simulator out of its contact counting, a Python callback that nothing here reads."""
    for shape in sim.space.shapes:
        shape.collision_type = 1


def place(sim: Simulator, state: ArrayLike) -> None:
    """Set a simulator to `state` [5] (agent xy, block xy, block angle) at rest, exactly."""
    values = np.asarray(state, dtype=np.float64)
    if values.shape != (5,) or not np.isfinite(values).all():
        raise TaskError(f"expected a finite state (agent xy, block xy, block angle), got {values.tolist()}")
    sim.agent.position = tuple(values[:2])
    sim.agent.velocity = (0.0, 0.0)
    # A block turns about its centre of gravity, which moves its position: the angle comes first.
    sim.block.angle = float(values[4])
    sim.block.position = tuple(values[2:4])
    sim.block.velocity = (0.0, 0.0)
    sim.block.angular_velocity = 0.0
    sim.space.reindex_shapes_for_body(sim.agent)
    sim.space.reindex_shapes_for_body(sim.block)


class PushT(Env[Observation, NDArray[np.float32]]):
    """PushT with the observations of `schema`; the action is the finger's target position (px).

    The score is `min(1, coverage / 0.95)`, the maximum over the episode; an episode ends with success once the block
    covers 95 % of its outline, or after 300 steps. `reset(options={"state": [5]})` sets a state instead of a layout. An
    image in `schema` is the table from above.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012 - gymnasium's interface

    def __init__(self, schema: Schema = SCHEMA, *, size: int = 256) -> None:
        self.render_mode = "rgb_array"
        self._schema = schema
        self.observation_space = observation_space(schema)
        self.action_space = box(SCHEMA.action)
        self.sim = simulator(size)
        self._steps = 0
        self._score = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Return (observation, info) of the layout that `seed` determines, or of `options["state"]`."""
        super().reset(seed=seed)
        check_asked(options or {}, ("state",))
        if options is not None and "state" in options:
            # Starting from a layout without contacts leaves none behind that would push the block later.
            self.sim.reset(seed=seed, options={"reset_to_state": APART})
            place(self.sim, options["state"])
        else:
            self.sim.reset(seed=seed)
        quiet(self.sim)
        # Else the picture would show the last episode's target.
        self.sim._last_action = None  # pyright: ignore[reportPrivateUsage]
        self._steps, self._score = 0, 0.0
        return self._observation(), self._info(success=False)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return (observation, score of this step, terminated, truncated, info) after 0.1 s towards `action` [2]."""
        target = checked_action(action, SCHEMA.action)
        _, _, _, _, outcome = self.sim.step(target)
        coverage = float(outcome["coverage"])
        score = min(1.0, coverage / SUCCESS_COVERAGE)
        success = coverage >= SUCCESS_COVERAGE
        self._steps += 1
        self._score = max(self._score, score)
        return self._observation(), score, success, self._steps >= MAX_STEPS, self._info(success=success)

    def render(self) -> NDArray[np.uint8]:
        """Return the scene as uint8 [size, size, 3], drawn without a display; a red cross marks the last target."""
        return self.sim.render()

    def close(self) -> None:
        """Free the simulator."""
        self.sim.close()

    def _observation(self) -> Observation:
        numbers = self.sim.get_obs()
        state = {"agent_position": numbers[:2], "block_position": numbers[2:4], "block_angle": numbers[4:]}
        return observed(self._schema, state, self._picture)

    def _picture(self, size: int) -> NDArray[np.uint8]:
        screen = self.sim._draw()  # pyright: ignore[reportPrivateUsage]
        return self.sim._get_img(screen, size, size)  # pyright: ignore[reportPrivateUsage]

    def _info(self, *, success: bool) -> dict[str, Any]:
        return {"success": success, "score": self._score}
