"""Networks `(x [B, H, A], t, Condition) -> [B, H, A]`."""

from .mlp import MLP, MLPConfig
from .unet1d import UNet1d, UNet1dConfig

AnyNetConfig = MLPConfig | UNet1dConfig
"""Every network that a configuration can name."""

__all__ = ["MLP", "AnyNetConfig", "MLPConfig", "UNet1d", "UNet1dConfig"]
