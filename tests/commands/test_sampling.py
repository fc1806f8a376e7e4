"""Solvers and grids by name: every name resolves, options go where they belong, mistakes are named."""

import pytest

from noise2action.commands.evaluate import sampler_name
from noise2action.commands.sampling import GRIDS, grid_named, resolve
from noise2action.config import decode, encode
from noise2action.diffusion.grids import Karras, LogSNR
from noise2action.diffusion.samplers import (
    DDIM,
    NAMED,
    Adams,
    Adaptive,
    DPMSolver,
    DPMSolverPPSDE,
    EDMStochastic,
    Heun,
    Hybrid,
)
from noise2action.diffusion.sde import Churn
from noise2action.errors import ConfigError
from noise2action.policies import Sampling


@pytest.mark.parametrize("name", NAMED)
def test_every_name_is_a_sampler_that_configurations_keep(name: str) -> None:
    sampler = resolve(name)
    assert sampler == NAMED[name] == resolve(name.upper()) == resolve(name.replace("-", "_"))
    sampling = Sampling(sampler, nfe=13)
    assert decode(Sampling, encode(sampling)) == sampling


def test_options_change_the_sampler_that_has_them() -> None:
    assert resolve("ddim", eta=0.5) == DDIM(eta=0.5)
    assert resolve("dpm-solver-2", order=3) == DPMSolver(order=3)
    assert resolve("hybrid", switch=0.3) == Hybrid(switch=0.3)
    assert resolve(Adams(order=2), order=4) == Adams(order=4)
    assert resolve("adaptive", nfe=77) == Adaptive(max_nfe=77)
    assert resolve("heun", nfe=77) == Heun()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpm-solver-4", {}, r"--sampler: expected a sampler by name, got 'dpm-solver-4'.*did you mean 'dpm-solver-"),
        ("heun", {"eta": 0.5}, r"--eta: expected a sampler that has it \(ddim\), got heun"),
        ("ddim", {"order": 2}, r"--order: expected a sampler that has it \(.*dpm-solver.*\), got ddim"),
        ("ddim", {"switch": 0.2}, r"--switch: expected a sampler that has it \(hybrid\)"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name, **options)


def test_grids_by_name() -> None:
    assert grid_named("karras") == Karras()
    assert grid_named("log-snr") == grid_named("log_snr") == LogSNR()
    assert {type(grid_named(name)) for name in GRIDS} == set(GRIDS.values())
    with pytest.raises(ConfigError, match=r"--grid: expected a grid by name, got 'karas'.*did you mean 'karras'"):
        grid_named("karas")


def test_an_evaluation_is_named_after_its_sampling() -> None:
    assert sampler_name(Sampling()) == "ddim"
    assert sampler_name(Sampling(DDIM(eta=0.5), Karras())) == "ddim(eta=0.5) on karras"
    assert sampler_name(Sampling(DPMSolverPPSDE())) == "dpm-solver++-sde-2m"
    assert sampler_name(Sampling(EDMStochastic(churn=Churn(amount=5.0)), nfe=9)).startswith("edm_stochastic(churn=")
