"""Noise on sensors and motors: a function of the seed, the same for every policy, and nothing where there is none."""

import numpy as np
import pytest

from noise2action.envs.disturbed import Noise, noisy
from noise2action.envs.episode import Observation
from noise2action.envs.tasks import find
from noise2action.envs.two_routes import SCHEMA, TOP_SPEED

TASK = find("two_routes")
SPREAD = {"position": np.array([0.02, 0.0])}
AHEAD = np.array([0.1, 0.2], np.float32)


def played(noise: Noise | None, *, seed: int = 3, action: np.ndarray = AHEAD, steps: int = 8) -> list[Observation]:
    env = (TASK if noise is None else noisy(TASK, noise)).make()
    return [env.reset(seed=seed)[0], *(env.step(action)[0] for _ in range(steps))]


def stacked(seen: list[Observation], name: str) -> np.ndarray:
    return np.stack([observation[name] for observation in seen])


def test_no_noise_is_the_plain_environment() -> None:
    for name in ("position", "velocity"):
        assert np.array_equal(stacked(played(Noise()), name), stacked(played(None), name))


def test_observation_noise_is_seen_and_changes_nothing_else() -> None:
    plain, seen = played(None), played(Noise(SPREAD))
    error = stacked(seen, "position") - stacked(plain, "position")
    assert (error[:, 0] != 0).all()
    assert not error[:, 1].any()
    assert np.array_equal(stacked(seen, "velocity"), stacked(plain, "velocity"))
    assert TASK.make().observation_space == noisy(TASK, Noise(SPREAD)).make().observation_space
    # The same episode again, another episode, another policy, twice the strength.
    assert np.array_equal(stacked(played(Noise(SPREAD)), "position"), stacked(seen, "position"))
    other = stacked(played(Noise(SPREAD), seed=4), "position") - stacked(played(None, seed=4), "position")
    assert not np.allclose(other, error)
    slower = stacked(played(Noise(SPREAD), action=AHEAD / 2), "position")
    assert slower - stacked(played(None, action=AHEAD / 2), "position") == pytest.approx(error, abs=1e-6)
    double = stacked(played(Noise({"position": 2 * SPREAD["position"]})), "position")
    assert double - stacked(plain, "position") == pytest.approx(2 * error, abs=1e-6)


def test_errors_have_the_spread_that_is_asked_for() -> None:
    env = noisy(TASK, Noise(SPREAD)).make()
    plain = TASK.make()
    errors = [env.reset(seed=k)[0]["position"] - plain.reset(seed=k)[0]["position"] for k in range(2000)]
    assert np.std(errors, axis=0) == pytest.approx([0.02, 0.0], rel=0.06)
    assert np.abs(np.mean(errors, axis=0)).max() < 4 * 0.02 / np.sqrt(2000)


def test_action_noise_is_limited_to_the_range() -> None:
    given: list[np.ndarray] = []

    class Recorder(type(TASK.make())):
        def step(self, action):
            given.append(np.array(action))
            return super().step(action)

    from dataclasses import replace  # noqa: PLC0415

    env = noisy(replace(TASK, make=Recorder), Noise(action=0.1)).make()
    for seed in range(100):
        env.reset(seed=seed)
        env.step(np.zeros(2, np.float32))
    assert np.std(given) == pytest.approx(0.1 * 2 * TOP_SPEED, rel=0.2)
    assert SCHEMA.action.high == TOP_SPEED
    given.clear()
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.full(2, TOP_SPEED, np.float32))
    assert np.max(given) == np.float32(TOP_SPEED)
    assert np.min(given) < TOP_SPEED
