"""Two routes to a goal that is told as a position and as a picture; either may be missing."""

from ..encoders.fuse import EncoderConfig
from ..encoders.image import ResNetConfig
from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, EvaluateConfig, Experiment


def two_routes_goal() -> Experiment:
    """Return a small diffusion policy on 800 simulated demonstrations; trains in about three minutes on one core."""
    return Experiment(
        task="two_routes_goal",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=8, control_hz=10.0),
            net=MLPConfig(width=256, blocks=3, condition_width=128),
            encoder=EncoderConfig(
                vision=ResNetConfig(widths=(16, 32), blocks=(1, 1), strides=(1, 1), dim=32),
                modality_dropout=0.25,
                droppable=("goal", "goal_image"),
            ),
            # An image costs more than a call of the network: each is trained on at four noise levels.
            draws=4,
        ),
        data=DataConfig(demonstrations=800),
        train=TrainConfig(steps=6_000, batch_size=64, threads=1, validate_minutes=0.5),
        evaluate=EvaluateConfig(episodes=300, workers=1),
    )
