"""Likelihood of action chunks against closed forms in robot units."""

import math

import pytest
import torch
from torch import nn

from noise2action.condition import Condition
from noise2action.data.normalize import Affine, Normalizer
from noise2action.diffusion.likelihood import Exact, Hutchinson
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.ode import AdaptiveSteps, FixedSteps
from noise2action.diffusion.paths import Straight
from noise2action.diffusion.targets import Clean
from noise2action.errors import ConfigError, DataError, ShapeError
from noise2action.policies import DiffusionConfig, RegressionConfig, Sampling
from noise2action.policies.likelihood import log_likelihood
from small_policies import NET, SCHEMA, SPEC, build, episodes, history, normalizer

close = torch.testing.assert_close
STD = 0.3


class LinearGaussian(nn.Module):
    """The exact network where normalised chunks are N(tile(C vector), STD^2): it predicts x0 on `Straight`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.2 * torch.randn(dim, SPEC.horizon * 2, generator=g, dtype=torch.float64))

    def mean(self, vector: torch.Tensor) -> torch.Tensor:
        return (vector.double() @ self.weight).unflatten(1, (SPEC.horizon, 2))

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        alpha, sigma = 1 - t, t
        x_t = x * (alpha**2 + sigma**2).sqrt()  # undoes the objective's input scale
        mean = self.mean(condition.vector)
        return mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * mean)


def exact_policy(scales: Normalizer, **sampling: float | None):
    config = DiffusionConfig(
        spec=SPEC, net=NET, objective=Diffusion(path=Straight(), target=Clean()), sampling=Sampling(**sampling)
    )
    policy = config.build(SCHEMA, scales)
    policy.backbone.net = LinearGaussian(policy.backbone.encoder.dim)
    return policy.eval()


def closed_form(policy, observed, actions) -> torch.Tensor:
    """Return the log-density of the actions: normal with the decoded mean, STD / |scale| an action."""
    vector = policy.backbone.condition(observed).vector
    affine = policy.backbone.normalizer.affines["action"]
    mean = (policy.backbone.net.mean(vector) - affine.offset) / affine.scale
    return torch.distributions.Normal(mean, STD / affine.scale.abs()).log_prob(actions).sum((1, 2)).detach()


@pytest.mark.parametrize("solver", [FixedSteps(30), AdaptiveSteps()], ids=repr)
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_linear_gaussian_policy_in_robot_units(solver, clip) -> None:
    """The chunks lie far outside [-1, 1], where the sampler's clip, which is no part of the density, would act."""
    policy = exact_policy(normalizer(episodes()), clip=clip)
    observed = {name: x.double() for name, x in history(5).items()}
    actions = 4 * torch.randn(5, SPEC.horizon, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = log_likelihood(policy, observed, actions, solver=solver, trace=Exact())
    expected = closed_form(policy, observed, actions)
    assert (found.nats - expected).abs().max() / found.dims < 1e-3
    close(found.bits_per_dimension, -found.nats / (SPEC.horizon * 2 * math.log(2)))
    assert found.dims == SPEC.horizon * 2


def test_units_change_the_density_by_their_jacobian() -> None:
    """A policy of the same actions in millimetres has a density 1000^dims smaller; reversed signs change nothing."""
    scales = normalizer(episodes())
    action = scales.affines["action"]
    other = Affine("limits", action.scale * torch.tensor([1e-3, -1.0]), action.offset)
    policies = [exact_policy(Normalizer({**scales.affines, "action": a})) for a in (action, other)]
    observed = {name: x.double() for name, x in history(3).items()}
    chunk = torch.randn(3, SPEC.horizon, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    units = [chunk, chunk * torch.tensor([1e3, -1.0], dtype=torch.float64)]
    metres, millimetres = (
        log_likelihood(p, observed, x, solver=FixedSteps(12), trace=Exact()).nats
        for p, x in zip(policies, units, strict=True)
    )
    close(millimetres, metres - SPEC.horizon * math.log(1e3), atol=1e-6, rtol=1e-6)


def test_an_action_that_never_varied_has_a_finite_density() -> None:
    data = episodes()
    arrays = {**data.arrays, "action": data.arrays["action"].copy()}
    arrays["action"][:, 1] = 0.25
    scales = Normalizer.fit(arrays, {"position": "limits", "heading": "identity", "action": "limits"})
    policy = exact_policy(scales)
    observed = {name: x.double() for name, x in history(3).items()}
    actions = torch.full((3, SPEC.horizon, 2), 0.25, dtype=torch.float64)
    found = log_likelihood(policy, observed, actions, solver=FixedSteps(30), trace=Exact())
    assert (found.nats - closed_form(policy, observed, actions)).abs().max() / found.dims < 1e-3


def test_a_float32_network_and_its_estimate() -> None:
    policy = build(DiffusionConfig(spec=SPEC, net=NET))
    actions = torch.randn(3, SPEC.horizon, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = log_likelihood(policy, history(3), actions, solver=AdaptiveSteps(1e-4, 1e-4), trace=Exact())
    fixed = log_likelihood(policy, history(3), actions, solver=FixedSteps(40), trace=Exact())
    close(exact.nats, fixed.nats, atol=0.05, rtol=1e-3)
    signs = log_likelihood(
        policy,
        history(3),
        actions,
        solver=FixedSteps(10),
        trace=Hutchinson(probes=64),
        generator=torch.Generator().manual_seed(0),
    )
    close(signs.nats, fixed.nats, atol=1.0, rtol=0.02)


def test_what_has_no_density_is_told() -> None:
    policy = build(DiffusionConfig(spec=SPEC, net=NET))
    chunk = torch.zeros(2, SPEC.horizon, 2)
    how = {"solver": FixedSteps(4), "trace": Exact()}
    with pytest.raises(ConfigError, match="--policy diffusion"):
        log_likelihood(build(RegressionConfig(spec=SPEC, net=NET)), history(2), chunk, **how)
    with pytest.raises(ShapeError, match="whole chunks"):
        log_likelihood(policy, history(2), chunk[:, :-1], **how)
    with pytest.raises(DataError, match="padded"):
        log_likelihood(policy, history(2), chunk * math.nan, **how)
