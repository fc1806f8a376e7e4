"""Which tasks belong together, and the policy that a task is compared with."""

from collections.abc import Mapping
from dataclasses import replace

from ..errors import ConfigError, did_you_mean
from ..policies import DiffusionConfig
from ..recipes import RECIPES
from ..recipes.experiment import Experiment

NAVIGATION = ("two_routes", "maze", "obstacles")
PUSHT = ("pusht",)
MANIPULATION = (
    "grasp_seen",
    "grasp_novel",
    "push_block",
    "insert_peg",
    "open_drawer",
    "assembly",
    "grasp_seen_post",
    "push_block_post",
)
SUITES: Mapping[str, tuple[str, ...]] = {
    "navigation": NAVIGATION,
    "pusht": PUSHT,
    "manipulation": MANIPULATION,
    "all": (*NAVIGATION, *PUSHT, *MANIPULATION),
}
"""Tasks by suite, in the order in which they run."""
STEPS = {"pusht": 24_000, "pusht_image": 16_000}
"""Optimiser steps where a recipe states minutes: with a budget in steps a table can be repeated to the bit."""


def tasks_of(suite: str) -> tuple[str, ...]:
    """Return the tasks of a suite; `ConfigError` with the known suites if there is no such one."""
    if suite not in SUITES:
        raise ConfigError(f"expected a suite, got {suite!r}; {did_you_mean(suite, SUITES)}")
    return SUITES[suite]


def experiment(name: str) -> Experiment:
    """Return how a task is learned: by its first recipe, through cameras as well; several train side by side."""
    plain = "pusht_image" if name.startswith("pusht@") else name.partition("@")[0]
    found = next(recipe for make in RECIPES.values() if (recipe := make()).task == plain)
    steps = found.train.steps if found.train.minutes is None else STEPS[plain]
    return replace(found, task=name, train=replace(found.train, steps=steps, minutes=None, threads=1))


def base(name: str) -> DiffusionConfig:
    """Return the diffusion policy that all methods of a task are made from."""
    policy = experiment(name).policy
    assert isinstance(policy, DiffusionConfig), "recipes are of diffusion policies"
    return policy
