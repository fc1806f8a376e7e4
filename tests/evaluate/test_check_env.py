"""A sound environment passes without a finding; one that breaks a promise is found by the check of that promise."""

import random
import sys
from itertools import count
from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium import Env
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from noise2action.envs import gentle_firm, obstacles, rendering, two_routes, two_routes_goal, two_routes_text
from noise2action.envs.tasks import find
from noise2action.errors import TaskError
from noise2action.evaluate.check_env import CHECKS, check_env

MAX_STEPS = 30


class Sound(Env):
    """A point that adds up its actions until it is right of x = 1; what is broken below is a method of its own here."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self):
        self.render_mode = "rgb_array"
        self.observation_space = Dict(
            {"position": Box(-np.inf, np.inf, (2,)), "camera": Box(0, 255, (4, 4, 3), np.uint8)}
        )
        self.action_space = Box(np.float32([-0.2, -0.1]), np.float32([0.2, 0.1]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.layout(), 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.position += self.obeyed(action)
        won = bool(self.position[0] > 1)
        return self.observe(), float(won), self.over(won), self.steps >= MAX_STEPS, self.info(won)

    def layout(self):
        return self.np_random.uniform(-1, 0.5, 2)

    def obeyed(self, action):
        if np.shape(action) != (2,) or not np.isfinite(action).all():
            raise ValueError("expected two finite numbers")
        return np.clip(action, self.action_space.low, self.action_space.high)

    def over(self, won):
        return won

    def info(self, won):
        return {"success": won, "score": float(won), "route": "right"}

    def observe(self):
        return {"position": self.position.astype(np.float32), "camera": self.picture()}

    def picture(self):
        return np.full((4, 4, 3), 20 * abs(self.position[0]) % 255, np.uint8)

    def render(self):
        return self.picture()


BROKEN = {}


def breaks(check):
    """Register an environment under the check that finds it."""

    def register(made):
        BROKEN[made.__name__] = (check, made)
        return made

    return register


@breaks("interface")
class EndsTheProgram(Sound):
    def reset(self, *, seed=None, options=None):
        sys.exit(3)

    def close(self):
        sys.exit(3)


@breaks("construct")
class NeedsArguments(Sound):
    def __init__(self, size):
        super().__init__()


@breaks("interface")
class FourValues(Sound):
    def step(self, action):
        return super().step(action)[1:]


@breaks("interface")
class NoSeed(Sound):
    def reset(self, options=None):
        return super().reset(options=options)


@breaks("interface")
class Crashes(Sound):
    def over(self, won):
        return [False, False, won][self.steps]


@breaks("construct")
def no_environment():
    return object()


@breaks("observation space")
class DoubleSpace(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = Dict({"position": Box(-np.inf, np.inf, (2,), np.float64)})

    def observe(self):
        return {"position": self.position.copy()}


@breaks("observation space")
class NoNames(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(-np.inf, np.inf, (2,))

    def observe(self):
        return self.position.astype(np.float32)


@breaks("observation space")
class GreyImage(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = Dict({"camera": Box(0, 255, (4, 4, 1), np.uint8)})

    def observe(self):
        return {"camera": self.picture()[..., :1].copy()}


class Chooses(Sound):
    space = None

    def __init__(self):
        super().__init__()
        self.action_space = self.space


@breaks("action space")
class Choice(Chooses):
    space = Discrete(3)


@breaks("action space")
class Pairs(Chooses):
    space = Tuple((Discrete(2), Box(-1, 1, (2,))))


@breaks("action space")
class Named(Chooses):
    space = Dict({"arm": Box(-1, 1, (2,)), "gripper": Discrete(2)})


@breaks("action limits")
class DoubleActions(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = Box(-1, 1, (2,), np.float64)


@breaks("action limits")
class Unbounded(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = Box(-np.inf, np.inf, (2,))


@breaks("reset")
class LastsOnce(Sound):
    def reset(self, *, seed=None, options=None):
        if getattr(self, "steps", 0) >= MAX_STEPS:
            raise RuntimeError("worn out")
        return super().reset(seed=seed)


class Observes(Sound):
    def observe(self):
        return {**super().observe(), "position": self.seen(self.position.astype(np.float32))}


@breaks("observations")
class Double(Observes):
    def seen(self, position):
        return position.astype(np.float64)


@breaks("observations")
class NotFinite(Observes):
    def seen(self, position):
        return position if self.steps < MAX_STEPS else np.full_like(position, np.inf)


@breaks("observations")
class OutOfRange(Observes):
    def __init__(self):
        super().__init__()
        self.observation_space = Dict({**self.observation_space, "position": Box(-0.01, 0.01, (2,))})

    def seen(self, position):
        return position


@breaks("observations")
class Forgets(Sound):
    def observe(self):
        seen = super().observe()
        return seen if self.steps < MAX_STEPS else {"camera": seen["camera"]}


@breaks("same seed")
class Entropy(Sound):
    def layout(self):
        return np.random.default_rng().uniform(-1, 0.5, 2)


@breaks("same seed")
class Continues(Sound):
    def layout(self):
        before = getattr(self, "position", np.zeros(2))
        return super().layout() + 0.01 * before


@breaks("same seed")
class OldPicture(Sound):
    def render(self):
        self.frames = getattr(self, "frames", 0) + 1
        return np.full((4, 4, 3), self.frames % 255, np.uint8)


@breaks("other seeds")
class AlwaysThere(Sound):
    def layout(self):
        return np.zeros(2)


@breaks("replay")
class Slips(Sound):
    def obeyed(self, action):
        return super().obeyed(action) + 1e-3 * np.random.default_rng().normal(size=2)


@breaks("global state")
class Numpy(Sound):
    def layout(self):
        return np.random.uniform(-1, 0.5, 2)


@breaks("global state")
class Python(Sound):
    def obeyed(self, action):
        return super().obeyed(action) + 1e-3 * random.random()


@breaks("global state")
class Torch(Sound):
    def layout(self):
        return super().layout() + 0.1 * torch.rand(2).numpy()


@breaks("second instance")
class Numbered(Sound):
    number = count()

    def __init__(self):
        super().__init__()
        self.me = next(self.number)

    def layout(self):
        return super().layout() + self.me


@breaks("second instance")
class Shared(Sound):
    world: ClassVar = {}

    @property
    def position(self):
        return self.world["position"]

    @position.setter
    def position(self, value):
        self.world["position"] = value


@breaks("own arrays")
class Mutated(Observes):
    def reset(self, *, seed=None, options=None):
        self.buffer = np.zeros(2, np.float32)
        return super().reset(seed=seed)

    def seen(self, position):
        self.buffer[:] = position
        return self.buffer


@breaks("own arrays")
class Inside(Observes):
    def layout(self):
        return super().layout().astype(np.float32)

    def seen(self, position):
        self.position = position
        return position

    def step(self, action):
        self.position = self.position.copy()
        self.position[:] += 0
        return super().step(action)


@breaks("action outside")
class Obeys(Sound):
    def obeyed(self, action):
        super().obeyed(action)
        return action


@breaks("action outside")
class ObeysBelow(Sound):
    def obeyed(self, action):
        super().obeyed(action)
        return np.minimum(action, self.action_space.high)


@breaks("action outside")
class Asserts(Sound):
    def obeyed(self, action):
        super().obeyed(action)
        if not self.action_space.contains(action):
            raise ValueError
        return action


@breaks("action NaN")
class TakesNaN(Sound):
    def obeyed(self, action):
        super().obeyed(np.nan_to_num(action))
        return np.clip(action, self.action_space.low, self.action_space.high)


@breaks("action shape")
class Spreads(Sound):
    def obeyed(self, action):
        return super().obeyed(np.resize(action, 2))


@breaks("action kept")
class Clips(Sound):
    def obeyed(self, action):
        super().obeyed(action)
        return np.clip(action, self.action_space.low, self.action_space.high, out=action)


@breaks("info")
class NoScore(Sound):
    def info(self, won):
        return {"success": won}


@breaks("info")
class Words(Sound):
    def info(self, won):
        return {**super().info(won), "success": "no"}


@breaks("info")
class TooMuch(Sound):
    def info(self, won):
        return {**super().info(won), "score": 1.5}


@breaks("info")
class NumberedRoute(Sound):
    def info(self, won):
        return {**super().info(won), "route": 1}


@breaks("success")
class GoesOn(Sound):
    def layout(self):
        return 0.99 + 0.01 * super().layout()

    def over(self, won):
        return False


@breaks("end")
class Endless(Sound):
    def step(self, action):
        seen, reward, terminated, _, info = super().step(action)
        return seen, reward, terminated, False, info


@breaks("render")
class Blind(Sound):
    def render(self):
        return None


@breaks("render")
class Pushes(Sound):
    def render(self):
        if self.steps:
            self.position[1] += 0.01
        return super().render()


@breaks("close")
class ClosesOnce(Sound):
    def close(self):
        del self.position


def test_a_sound_environment_passes_every_check_and_leaves_the_world_as_it_was():
    before, seen = (np.random.get_state()[1].tobytes(), torch.get_rng_state()), []
    assert check_env(Sound, on_check=seen.append) == []
    assert [finding.check for finding in seen] == [check.name for check in CHECKS]
    assert {finding.level for finding in seen} == {"ok"}
    assert np.random.get_state()[1].tobytes() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found_by_its_own_check_and_no_other(name):
    check, make = BROKEN[name]
    found = check_env(make, seeds=(0, 1, 2), steps=200)
    assert [finding.check for finding in found] == [check], found
    assert found[0].message.startswith(("expected", "observation", "feature"))
    assert found[0].remedy


def test_every_check_has_an_environment_that_breaks_it():
    assert {check for check, _ in BROKEN.values()} == {check.name for check in CHECKS}


@pytest.mark.parametrize(
    "make",
    [two_routes.TwoRoutes, two_routes_goal.make, two_routes_text.make, gentle_firm.GentleFirm, obstacles.Obstacles],
)
def test_the_light_tasks_pass(make):
    assert check_env(make, seeds=(0, 1), steps=200) == []


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        ("grasp_seen", "metaworld"),
        ("grasp_novel", "metaworld"),
        ("maze", "gymnasium_robotics"),
        ("pusht", "pymunk"),
    ],
)
def test_the_simulated_tasks_pass(name, simulator):
    pytest.importorskip(simulator, reason="needs the extra `sim`")
    if name != "pusht":  # which draws without OpenGL
        try:
            rendering.platform()
        except TaskError as error:
            pytest.skip(str(error))
    task = find(name)
    assert check_env(task.make, seeds=(0, 1), steps=task.max_steps) == []


def test_one_seed_compares_nothing():
    with pytest.raises(ValueError, match="two seeds"):
        check_env(Sound, seeds=(3, 3))
