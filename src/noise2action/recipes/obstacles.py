"""Obstacles: several ways between posts that stand elsewhere each time."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec, Sampling
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def obstacles() -> Experiment:
    """Return a diffusion policy on 200 simulated demonstrations; trains in about five minutes on one core."""
    return Experiment(
        task="obstacles",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
            # Where one way forks into many, coarse steps end between two of them.
            sampling=Sampling(nfe=16),
        ),
        data=DataConfig(demonstrations=200),
        train=TrainConfig(steps=6_000, learning_rate=3e-3, threads=1, validate_minutes=0.5),
        evaluate=EvaluateConfig(workers=1),
    )
