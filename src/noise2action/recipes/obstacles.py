"""Obstacles: several ways between posts that stand elsewhere each time."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def obstacles() -> Experiment:
    """Return a diffusion policy on 200 simulated demonstrations; trains in about three minutes on one core."""
    return Experiment(
        task="obstacles",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
        ),
        data=DataConfig(demonstrations=200),
        train=TrainConfig(steps=4_000, threads=1, validate_minutes=0.5),
        evaluate=EvaluateConfig(workers=1),
    )
