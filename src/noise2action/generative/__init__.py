"""Generative models of points, images and latents: noise to samples, with labels and guidance."""

from .latent import LatentConfig, LatentModel
from .model import Guidance, Model, ModelConfig

AnyModelConfig = ModelConfig | LatentConfig
"""Every generative model that a configuration can name."""

AnyModel = Model | LatentModel
"""Every generative model: `fit_scale`, `loss`, `denoiser`, `sample`."""

__all__ = ["AnyModel", "AnyModelConfig", "Guidance", "LatentConfig", "LatentModel", "Model", "ModelConfig"]
