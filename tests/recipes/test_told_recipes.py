"""Recipes that are told what to do: they train as they are written, and do what is said."""

from dataclasses import replace

import numpy as np
import pytest

from noise2action.envs.tasks import find as find_task
from noise2action.envs.two_routes_text import ROUTES
from noise2action.evaluate.rollouts import rollout
from noise2action.evaluate.setting import setting_for
from noise2action.evaluate.statistics import wilson
from noise2action.policies.checkpoint import build, load
from noise2action.recipes import find
from noise2action.recipes.prepare import job
from noise2action.train.loop import fit


def run_of(experiment, folder, *, weights="ema"):
    """Train `experiment` and return the policy that its checkpoint holds."""
    folder.mkdir()
    assert fit(job(experiment)[0], folder)
    return build(load(folder), weights=weights)


@pytest.mark.parametrize(
    ("name", "hide"),
    [("two_routes_goal", ("goal",)), ("two_routes_goal", ("goal_image",)), ("gentle_firm", ())],
)
def test_a_recipe_trains_and_acts_with_all_or_some_of_its_observations(name, hide, tmp_path):
    recipe = find(name)
    short = replace(
        recipe,
        data=replace(recipe.data, demonstrations=3, held_out=0.3),
        train=replace(recipe.train, steps=6, batch_size=8, warmup_steps=0),
    )
    policy = run_of(short, tmp_path / name, weights="model")
    task = find_task(name)
    assert policy.spec.control_hz == task.control_hz
    (plain,), (less,) = (rollout(task, policy, [7], setting=setting_for(policy, hide=h)) for h in ((), hide))
    assert plain.steps > 1
    first = plain.trace.actions[0], less.trace.actions[0]
    assert np.array_equal(*first) == (not hide)


@pytest.mark.slow
def test_the_guided_policy_takes_the_told_route_and_either_way_keeps_both(tmp_path):
    policy, task = run_of(find("two_routes_text"), tmp_path / "run"), find_task("two_routes_text")
    for say, route in ROUTES.items():
        results = rollout(task, policy, range(200), setting=setting_for(policy, say=say))
        if route is not None:
            assert np.mean([r.route == route for r in results]) >= 0.98
            continue
        assert np.mean([r.success for r in results]) >= 0.9
        for side in ("left", "right"):
            assert wilson(sum(r.route == side for r in results), len(results)).low > 0.1
    # Words that share nothing with what was learnt, and such that share some.
    lost = rollout(task, policy, range(200), setting=setting_for(policy, say="fly to the moon"))
    assert np.mean([r.success for r in lost]) >= 0.9
    part = rollout(task, policy, range(200), setting=setting_for(policy, say="turn towards the left side please"))
    assert np.mean([r.route == "left" for r in part]) >= 0.75
