"""PushT from state with the network and the process of the diffusion-policy paper, small enough for a CPU."""

from ..diffusion.objective import Diffusion
from ..diffusion.paths import Schedule
from ..diffusion.targets import Epsilon
from ..nets import UNet1dConfig
from ..policies import DiffusionConfig, PolicySpec, Sampling
from ..train.config import TrainConfig
from .experiment import DataConfig, Experiment
from .pusht_state import COLUMNS, MIRROR, RETARGET


def pusht_state_unet() -> Experiment:
    """Return a policy on a 1-D U-Net of 1.1 M parameters that predicts the noise of 100 steps; an hour on 2 cores.

    The paper's has 65 M and trains for many GPU hours; `--policy.net.widths 256 512 1024 --policy.net.time-dim 256` is
    that one.

    **Source:** Chi et al. 2023, section III (DDPM, epsilon, squared-cosine schedule).
    """
    return Experiment(
        task="pusht",
        policy=DiffusionConfig(
            spec=PolicySpec(obs_steps=2, horizon=16, stride=6, control_hz=10.0),
            net=UNet1dConfig(widths=(32, 64, 128), time_dim=64),
            objective=Diffusion(path=Schedule(steps=100, name="cosine"), target=Epsilon()),
            sampling=Sampling(nfe=10),
        ),
        data=DataConfig(columns=COLUMNS, retarget=RETARGET, mirror=MIRROR),
        train=TrainConfig(minutes=60.0, learning_rate=5e-4, warmup_steps=500, validate_minutes=10.0),
    )
