"""PushT from pictures: the same task, but where the block is only the camera shows."""

from dataclasses import replace

from ..encoders.fuse import EncoderConfig
from ..encoders.image import CropRatio
from ..nets import MLPConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import Column, DataConfig, Experiment
from .pusht_state import MIRROR


def pusht_image() -> Experiment:
    """Return a diffusion policy that sees 96 x 96 pixels and the finger's position; an hour of training on 2 cores."""
    return Experiment(
        task="pusht_image",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=6, control_hz=10.0),
            net=MLPConfig(width=512, blocks=3, expansion=2, condition_width=256),
            encoder=EncoderConfig(crop=CropRatio(0.875)),
            draws=8,
        ),
        data=DataConfig(
            columns=(Column("agent_position", "state", 0, 2), Column("image", "img", 0, 3)),
            mirror=replace(MIRROR, points=("agent_position", "action"), angles=(), images=("image",)),
        ),
        train=TrainConfig(minutes=60.0, batch_size=128, learning_rate=5e-4, validate_minutes=10.0),
    )
