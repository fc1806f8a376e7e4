"""Latent diffusion: a generative model of codes, and the autoencoder that turns codes into data."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..diffusion.denoisers import Denoiser
from ..diffusion.grids import Grid
from ..diffusion.objective import Diffusion, Losses, masked_mean
from ..diffusion.sampling import Sampler
from ..diffusion.tableau import OnStep
from ..nets import AnyModelNet, UNet2dConfig
from ..nets.autoencoder import AnyAutoencoderConfig, Coded, ConvAutoencoderConfig
from ..seeds import Generators
from ..shapes import Noisy
from .model import ModelConfig, Weights
from .scale import Scale


@dataclass(frozen=True)
class LatentConfig:
    """A generative model of the codes of an autoencoder; both learn together."""

    shape: tuple[int, ...]
    """Of one sample: (D,) for points, (channels, height, width) for images."""
    autoencoder: AnyAutoencoderConfig = field(default_factory=ConvAutoencoderConfig)
    """Data to codes and back."""
    net: AnyModelNet = field(default_factory=UNet2dConfig)
    """Network of codes."""
    objective: Diffusion = field(default_factory=Diffusion)
    """Path, target, training times and weight, for codes."""
    classes: int = 0
    """Number of classes that samples are labelled with; 0 for none."""
    p_uncond: float = 0.1
    """Probability that training hides a label behind the learned null; guidance needs it above 0."""

    def __post_init__(self) -> None:
        """Reject what a model of samples of this shape would reject."""
        self.of(self.shape)

    def of(self, shape: tuple[int, ...]) -> ModelConfig:
        """Return the model that diffuses codes of `shape`."""
        return ModelConfig(shape, self.net, self.objective, self.classes, self.p_uncond)

    def build(self) -> "LatentModel":
        """Return the model with fresh weights (from the global generator)."""
        return LatentModel(self)


class LatentModel(nn.Module):
    """Noise to codes to samples, with the methods of `Model`; what `Model` says of its samples holds for codes here.

    One loss trains both parts: the error of the reconstruction, and the diffusion loss of the code, whose gradient
    ends at the code. Every code has mean 0 and mean square 1, so the scale that the diffusion sees never moves.
    """

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = config.autoencoder.build(shape=config.shape)
        self.codes = config.of(self.autoencoder.latent).build()
        self.scale = Scale(config.shape)

    def fit_scale(self, x: Noisy) -> None:
        """Store the mean of each coordinate (or channel) of `x` [n, *shape] and one standard deviation of all."""
        self.scale.fit(x)

    def normalised(self, x: Noisy) -> Coded:
        """Return the codes [B, *latent] of `x` [B, *shape] in raw units."""
        return self.autoencoder.encode(self.scale.normalised(x))

    def raw(self, y: Coded) -> Noisy:
        """Return the samples [B, *shape], in raw units, that the codes `y` stand for."""
        return self.scale.raw(self.autoencoder.decode(y))

    def loss(self, x: Noisy, labels: Int[Tensor, "B"] | None = None, *, generator: torch.Generator) -> Losses:
        """Return reconstruction error plus diffusion loss, a sample of `x` [B, *shape] in raw units."""
        y = self.scale.normalised(x)
        code, again = self.autoencoder(y, generator=generator)
        diffusion = self.codes.loss(code.detach(), labels, generator=generator)
        return Losses(diffusion.value + masked_mean((again - y) ** 2, None), diffusion.t)

    def denoiser(self, labels: Int[Tensor, "*K B"] | None = None, *, w: Weights = 0.0) -> Denoiser:
        """Return the denoiser of codes under `labels`, guided by the weight `w`; see `Model.denoiser`."""
        return self.codes.denoiser(labels, w=w)

    @torch.no_grad()
    def sample(  # noqa: PLR0913 - every choice of a sample, by name, as in `Model.sample`
        self,
        n: int,
        *,
        sampler: Sampler | None = None,
        grid: Grid | None = None,
        nfe: int = 20,
        labels: Int[Tensor, "*K n"] | None = None,
        w: Weights = 0.0,
        clip: float | None = None,
        guide: Callable[[Denoiser], Denoiser] | None = None,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Noisy:
        """Return `n` samples [n, *shape] in raw units: codes are sampled, see `Model.sample`, then decoded.

        `clip` bounds |x0_hat| of codes; `guide` and `on_step` see codes, of which `raw` makes samples.
        """
        codes = self.codes.sample(
            n,
            sampler=sampler,
            grid=grid,
            nfe=nfe,
            labels=labels,
            w=w,
            clip=clip,
            guide=guide,
            generator=generator,
            on_step=on_step,
        )
        return self.raw(codes)
