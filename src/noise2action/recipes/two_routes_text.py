"""Two routes, one of which is told in words; the instruction guides."""

from ..encoders.fuse import EncoderConfig
from ..encoders.text import HashedNGramsConfig
from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec, Sampling
from ..policies.diffusion import Guided
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment

INSTRUCTION = "instruction"
"""The modality that guides, and that may be missing."""


def two_routes_text() -> Experiment:
    """Return a small guided diffusion policy on 300 simulated demonstrations; trains in about a minute on 2 cores."""
    return Experiment(
        task="two_routes_text",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
            encoder=EncoderConfig(text=HashedNGramsConfig(width=1024), modality_dropout=0.1, droppable=(INSTRUCTION,)),
            sampling=Sampling(guided=(Guided(INSTRUCTION, 1.0),)),
        ),
        data=DataConfig(demonstrations=300),
        train=TrainConfig(steps=4_000, threads=1, validate_minutes=0.25),
        evaluate=EvaluateConfig(episodes=300, workers=1),
    )
