"""A comparison that takes seconds: a small policy in two_routes, and episodes written by hand."""

from dataclasses import replace
from functools import partial

import pytest

from noise2action.compare import run as run_module
from noise2action.compare import settings as settings_module
from noise2action.compare import stages, suites, training
from noise2action.compare.methods import METHODS
from noise2action.compare.rows import Row
from noise2action.compare.settings import Settings
from noise2action.compare.stages import Timing
from noise2action.evaluate import statistics
from noise2action.evaluate.result import About, Evaluation
from noise2action.evaluate.rollouts import EpisodeResult
from noise2action.nets import MLPConfig
from noise2action.train.config import TrainConfig

SMALL = MLPConfig(width=16, blocks=1, condition_width=8, time_dim=8)
TIMING = Timing(8, "ddim", 8, 10, 1.0, 2.0, 3.0, 100)


def tiny(**changed) -> Settings:
    """Return settings of a comparison of seconds."""
    usual = Settings(
        "navigation",
        ("two_routes",),
        ("demonstrator", "random", "nearest", "bc", "ddim"),
        demonstrations=4,
        train_steps=12,
        episodes=6,
        record=0,
    )
    return replace(usual, **changed)


def shrink(patch: pytest.MonkeyPatch, *, page: bool = False) -> None:
    """Make everything small: networks, blocks, and what `hasten` does."""
    experiment = suites.experiment

    def small(name):
        recipe = experiment(name)
        train = TrainConfig(steps=12, batch_size=32, precision="fp32", threads=1)
        policy = replace(recipe.policy, net=SMALL)
        data = replace(recipe.data, held_out=0.25)
        return replace(recipe, policy=policy, data=data, train=train)

    patch.setattr(suites, "experiment", small)
    patch.setattr(training, "experiment", small)
    patch.setattr(settings_module, "BLOCK", 4)
    hasten(patch, page=page)


def hasten(patch: pytest.MonkeyPatch, *, page: bool = False) -> None:
    """Make small what no other process does: resamples, calls that are timed, and no page unless asked for."""
    patch.setattr(statistics, "RESAMPLES", 99)
    patch.setattr(stages, "measured", partial(stages.measured, calls=3))
    if not page:
        patch.setattr(run_module, "write_page", lambda *_, **__: None)


def row(
    name: str,
    outcomes: str,
    *,
    control: Row | None = None,
    score: float | None = None,
    first: int = 0,
    route: str = "left",
) -> Row:
    """Return a row whose episodes succeed where `outcomes` has a 1."""
    results = tuple(
        EpisodeResult(first + k, x == "1", float(x == "1") if score is None else score, 20, route, 1.0 + k, 0.2, 0.1)
        for k, x in enumerate(outcomes)
    )
    method = METHODS[name]
    about = About("two_routes", method.label, "ema", "-", 1, 10.0, 8, "m/s", threads=1)
    paired = None if control is None else control.evaluation
    timing = TIMING if method.training else None
    return Row("two_routes", method, Evaluation(about, results, reference={"left": 0.5, "right": 0.5}), paired, timing)
