"""Two routes: the light control task on which averaging fails."""

from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def two_routes() -> Experiment:
    """Return a small diffusion policy on 200 simulated demonstrations; trains in about a minute on 2 cores."""
    return Experiment(
        task="two_routes",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
        ),
        data=DataConfig(demonstrations=200),
        # One thread: at this size threads wait for each other longer than they compute.
        train=TrainConfig(steps=4_000, threads=1, validate_minutes=0.25),
        evaluate=EvaluateConfig(workers=1),
    )
