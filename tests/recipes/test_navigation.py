"""Recipes of navigation: they train as they are written, on layouts that are not those of the evaluation."""

from dataclasses import replace

import pytest

from noise2action.envs.tasks import find as find_task
from noise2action.evaluate.rollouts import rollout
from noise2action.policies.checkpoint import build, load
from noise2action.recipes import find
from noise2action.recipes.prepare import job
from noise2action.train.loop import fit


@pytest.mark.parametrize("name", ["maze", "obstacles"])
def test_a_recipe_trains_and_acts(name, tmp_path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="the extra `sim` is not installed: the maze is not tested")
    recipe, task = find(name), find_task(name)
    short = replace(
        recipe,
        data=replace(recipe.data, demonstrations=3, held_out=0.3),
        train=replace(recipe.train, steps=6, batch_size=8, warmup_steps=0),
    )
    assert fit(job(short)[0], tmp_path)
    policy = build(load(tmp_path), weights="model")
    assert (policy.spec.control_hz, policy.spec.horizon, policy.spec.stride) == (task.control_hz, 16, 8)
    (result,) = rollout(task, policy, [0])
    assert 0 < result.steps <= task.max_steps
    assert not result.success
