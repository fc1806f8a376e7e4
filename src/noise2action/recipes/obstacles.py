"""Obstacles: several ways between posts that stand elsewhere each time."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def obstacles() -> Experiment:
    """Return a diffusion policy on 200 simulated demonstrations; trains in about three minutes on 2 cores."""
    return Experiment(
        task="obstacles",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=384, blocks=3, condition_width=192),
        ),
        data=DataConfig(demonstrations=200),
        train=TrainConfig(steps=8_000, threads=1, validate_minutes=0.5),
        evaluate=EvaluateConfig(workers=1),
    )
