"""Two routes: the light control task on which averaging fails."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, Experiment


def two_routes() -> Experiment:
    """Return a small diffusion policy on 200 simulated demonstrations; trains in about a minute on 2 cores."""
    return Experiment(
        task="two_routes",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, told_width=128),
        ),
        data=DataConfig(demonstrations=200),
        train=TrainConfig(steps=6_000, validate_minutes=0.25),
    )
