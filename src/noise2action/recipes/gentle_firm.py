"""Gentle or firm: the words that are told change the force that is measured."""

from ..encoders.fuse import EncoderConfig
from ..encoders.text import HashedNGramsConfig
from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def gentle_firm() -> Experiment:
    """Return a small diffusion policy on 200 simulated demonstrations; trains in about a minute on 2 cores."""
    return Experiment(
        task="gentle_firm",
        policy=DiffusionConfig(
            # A fifth of a second between plans: the force has to be felt in time.
            spec=PolicySpec(obs_steps=2, horizon=16, stride=4, control_hz=20.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
            encoder=EncoderConfig(text=HashedNGramsConfig(width=1024)),
        ),
        data=DataConfig(demonstrations=200),
        train=TrainConfig(steps=4_000, threads=1, validate_minutes=0.25),
        evaluate=EvaluateConfig(episodes=300, workers=1),
    )
