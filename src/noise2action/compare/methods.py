"""What is compared: each method is a policy that is trained, a way of running it, or something to measure against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.windows import Batch
from ..diffusion.objective import Diffusion, Losses
from ..diffusion.paths import Straight
from ..diffusion.samplers import NAMED
from ..diffusion.tableau import OnStep
from ..diffusion.targets import Velocity
from ..errors import ConfigError, did_you_mean
from ..policies import (
    AnyPolicyConfig,
    DiffusionConfig,
    MixtureConfig,
    NearestConfig,
    PolicySpec,
    RegressionConfig,
    Sampling,
)
from ..schema import Schema
from ..seeds import Generators
from ..timing import Stopwatch


def _single_step(base: DiffusionConfig) -> AnyPolicyConfig:
    spec = replace(base.spec, horizon=1, stride=1, first_action=0)
    return RegressionConfig(spec, base.net, base.encoder)


def _regression(base: DiffusionConfig) -> AnyPolicyConfig:
    return RegressionConfig(base.spec, base.net, base.encoder)


def _mixture(base: DiffusionConfig) -> AnyPolicyConfig:
    return MixtureConfig(base.spec, base.net, base.encoder)


def _nearest(base: DiffusionConfig) -> AnyPolicyConfig:
    return NearestConfig(base.spec)


def _diffusion(base: DiffusionConfig) -> AnyPolicyConfig:
    return base


def _flow(base: DiffusionConfig) -> AnyPolicyConfig:
    objective = Diffusion(path=Straight(), target=Velocity(), times=base.objective.times)
    return replace(base, objective=objective, sampling=replace(base.sampling, sampler=NAMED["euler"]))


TRAININGS: Mapping[str, Callable[[DiffusionConfig], AnyPolicyConfig]] = {
    "bc-step": _single_step,
    "bc": _regression,
    "bc-gmm": _mixture,
    "nearest": _nearest,
    "diffusion": _diffusion,
    "flow": _flow,
}
"""What is trained, made from the task's diffusion policy: the same window, network and encoder."""


@dataclass(frozen=True)
class Method:
    """One row of a comparison."""

    name: str
    label: str
    """What tables and figures say; without a comma, as labels are listed with commas."""
    training: str | None
    """Which of `TRAININGS` it runs; None for what is not trained and only measured against."""
    sampler: str | None = None
    """Solver by name, where it is not the training's own."""

    def sampling(self, config: AnyPolicyConfig) -> Sampling | None:
        """Return how it samples; None for a policy that does not."""
        if not isinstance(config, DiffusionConfig):
            return None
        return config.sampling if self.sampler is None else replace(config.sampling, sampler=NAMED[self.sampler])


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("demonstrator", "demonstrator", None),
        Method("random", "random actions", None),
        Method("nearest", "nearest neighbour", "nearest"),
        Method("bc-step", "BC single step", "bc-step"),
        Method("bc", "BC chunk (control)", "bc"),
        Method("bc-gmm", "BC-GMM", "bc-gmm"),
        Method("ddim", "diffusion (DDIM)", "diffusion", "ddim"),
        Method("dpm-solver++", "diffusion (DPM-Solver++ 2M)", "diffusion", "dpm-solver++-2m"),
        Method("flow", "flow matching", "flow"),
    )
}
"""Every method by name, in the order of the tables."""
CONTROL = "bc"
"""What differences are taken to: regression on the backbone of diffusion and flow."""
GENERATIVE = ("ddim", "dpm-solver++", "flow")
"""Methods that draw chunks from a learned distribution by many network calls."""


def find(name: str) -> Method:
    """Return the method called `name`; `ConfigError` with the known names if there is none."""
    if name not in METHODS:
        raise ConfigError(f"--methods: expected a method, got {name!r}; {did_you_mean(name, METHODS)}")
    return METHODS[name]


@dataclass(eq=False)
class RandomPolicy:
    """Actions drawn uniformly from a range, one at a time: what success is worth that needs no skill."""

    schema: Schema
    low: Tensor
    """[A], robot units."""
    high: Tensor
    spec: PolicySpec

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Raise `ConfigError`: nothing is learned."""
        raise ConfigError("expected a policy that learns, got random actions: they have no loss")

    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return one random action [B, 1, A]; see `Policy.plan`."""
        del watch, on_step
        rows = len(next(iter(history.values())))
        generators = [generator] * rows if isinstance(generator, torch.Generator | None) else generator
        drawn = torch.stack([torch.rand(1, len(self.low), generator=g) for g in generators])
        actions = self.low + (self.high - self.low) * drawn
        return self.spec.keeping(committed, actions)
