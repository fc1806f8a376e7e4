"""Networks of action chunks `(x [B, H, A], t, Condition)`, and of samples of any shape `(x [B, ...], t, labels)`."""

from .dit import DiT, DiTConfig
from .fusion import FusionMLP, FusionMLPConfig
from .mlp import MLP, ConcatMLP, MLPConfig
from .points import PointMLP, PointMLPConfig
from .transformer import Transformer, TransformerConfig
from .unet1d import UNet1d, UNet1dConfig
from .unet2d import UNet2d, UNet2dConfig

AnyNetConfig = MLPConfig | UNet1dConfig | TransformerConfig | DiTConfig | FusionMLPConfig
"""Every network of action chunks that a configuration can name."""

AnyModelNet = PointMLPConfig | UNet2dConfig
"""Every network of a generative model that a configuration can name; each is told labels, the last one the null."""

__all__ = [
    "MLP",
    "AnyModelNet",
    "AnyNetConfig",
    "ConcatMLP",
    "DiT",
    "DiTConfig",
    "FusionMLP",
    "FusionMLPConfig",
    "MLPConfig",
    "PointMLP",
    "PointMLPConfig",
    "Transformer",
    "TransformerConfig",
    "UNet1d",
    "UNet1dConfig",
    "UNet2d",
    "UNet2dConfig",
]
