"""PushT from state with a transformer: action tokens ask observation tokens by cross-attention."""

from ..nets import TransformerConfig
from ..policies import DiffusionConfig, PolicySpec
from ..train.config import TrainConfig
from .experiment import DataConfig, Experiment
from .pusht_state import COLUMNS, MIRROR, RETARGET


def pusht_state_transformer() -> Experiment:
    """Return a policy on an encoder-decoder transformer of 0.6 M parameters; an hour of training on 2 cores."""
    return Experiment(
        task="pusht",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=6, control_hz=10.0),
            net=TransformerConfig(width=96, layers=3),
        ),
        data=DataConfig(columns=COLUMNS, retarget=RETARGET, mirror=MIRROR),
        train=TrainConfig(
            minutes=60.0,
            learning_rate=5e-4,
            warmup_steps=500,
            # So few and narrow tokens gain nothing from bf16: casting costs more than the products save.
            precision="fp32",
            validate_minutes=10.0,
        ),
    )
