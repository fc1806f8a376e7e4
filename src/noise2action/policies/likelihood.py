"""Likelihood of action chunks: how probable a policy finds what was done, given what was observed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import likelihood
from ..diffusion.likelihood import Trace
from ..diffusion.ode import Solver, cleanest_time
from ..errors import ConfigError, DataError, ShapeError
from ..seeds import Generators
from ..shapes import Chunk
from .diffusion import DiffusionPolicy
from .policy import Policy


@dataclass(frozen=True, eq=False)
class ChunkLikelihood:
    """Log-densities of whole chunks."""

    nats: Float[Tensor, "B"]
    """log p(chunk | observations), per (action unit)^dims."""
    dims: int
    """Numbers in a chunk, H A."""

    @property
    def bits_per_dimension(self) -> Float[Tensor, "B"]:
        """-nats / (dims ln 2): the code length of an action number at a resolution of one action unit."""
        return likelihood.bits_per_dimension(self.nats, self.dims)


def check_density(policy: Policy) -> DiffusionPolicy:
    """Return `policy`, or raise `ConfigError` where it has no density of actions."""
    if not isinstance(policy, DiffusionPolicy):
        raise ConfigError(
            f"expected a diffusion policy, got {type(policy).__name__}: it has no density of actions; train one with "
            "--policy diffusion"
        )
    return policy


def log_likelihood(
    policy: Policy,
    history: Mapping[str, Tensor],
    actions: Chunk,
    *,
    solver: Solver,
    trace: Trace,
    generator: Generators | None = None,
) -> ChunkLikelihood:
    """Return the log-density of whole chunks `actions` [B, H, A] given `history`, both in robot units.

    The density is that of the policy's probability flow, guidance included, but not of its `clip`: a clipped estimate
    puts mass on a bound, which has no density. The normaliser is undone by its Jacobian. It clips nothing; an action
    that never varied in training has scale 1, and a density as high as the cleanest noise of the path allows: it says
    nothing about the policy, and adds the same to every chunk that keeps the value. Padded chunks are not accepted as
    such: leave them out.

    Raises `ConfigError` for a policy without a density, `ShapeError` and `DataError` for chunks that are not whole.
    """
    policy = check_density(policy)
    backbone, objective = policy.backbone, policy.config.objective
    wanted = (policy.spec.horizon, policy.schema.action_dim)
    if actions.shape[1:] != wanted:
        raise ShapeError(f"expected whole chunks [B, {wanted[0]}, {wanted[1]}], got {tuple(actions.shape)}")
    if not bool(actions.isfinite().all()):
        raise DataError("expected finite actions, got NaN or infinity: leave padded or damaged chunks out")
    with torch.no_grad():
        condition = backbone.condition(history)
    low, start = objective.span
    unclipped = policy.resampled(replace(policy.config.sampling, clip=None))
    nats = likelihood.log_likelihood(
        unclipped.denoiser(condition),
        objective.path,
        backbone.normalised_actions(policy.spec.learnt(actions, history)),
        solver=solver,
        trace=trace,
        generator=generator,
        start=start,
        cleanest=cleanest_time(objective.path, low=low),
    )
    scale = backbone.normalizer.affines[policy.schema.action.name].scale
    return ChunkLikelihood(nats + wanted[0] * float(scale.abs().log().sum()), math.prod(wanted))
