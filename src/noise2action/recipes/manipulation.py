"""Manipulation from state: the six tasks and their variants, each learnt from 200 simulated demonstrations."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, Experiment


def _recipe(task: str) -> Experiment:
    """Return a diffusion policy of 1.3 M parameters over chunks of 0.2 s; trains in two minutes on one core."""
    return Experiment(
        task=task,
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=80.0),
            net=MLPConfig(width=256, blocks=3, expansion=2, condition_width=128),
        ),
        data=DataConfig(demonstrations=200),
        # Three times the usual rate: at the usual one so few steps leave the moment of a grasp vague.
        train=TrainConfig(steps=2_000, learning_rate=3e-3, threads=1),
    )


def grasp_seen() -> Experiment:
    """Return the recipe of taking a puck to a point in the air."""
    return _recipe("grasp_seen")


def grasp_novel() -> Experiment:
    """Return the recipe of the same with objects of shapes that were not demonstrated."""
    return _recipe("grasp_novel")


def push_block() -> Experiment:
    """Return the recipe of moving a puck over the table to a mark."""
    return _recipe("push_block")


def insert_peg() -> Experiment:
    """Return the recipe of putting a peg into a hole."""
    return _recipe("insert_peg")


def open_drawer() -> Experiment:
    """Return the recipe of pulling a drawer open."""
    return _recipe("open_drawer")


def assembly() -> Experiment:
    """Return the recipe of putting a ring over a peg."""
    return _recipe("assembly")


def grasp_seen_post() -> Experiment:
    """Return the recipe of `grasp_seen` with a post in the way."""
    return _recipe("grasp_seen_post")


def push_block_post() -> Experiment:
    """Return the recipe of `push_block` with a post in the way."""
    return _recipe("push_block_post")
