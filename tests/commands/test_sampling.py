"""Solvers and grids by name: every name resolves, options go where they belong, mistakes are named."""

import pytest

from noise2action.commands.sampling import GRIDS, grid_named, objective_named, resolve
from noise2action.config import decode, encode
from noise2action.diffusion.grids import Karras, LogSNR
from noise2action.diffusion.objective import MinSNR
from noise2action.diffusion.paths import Schedule
from noise2action.diffusion.samplers import (
    DDIM,
    DDPM,
    NAMED,
    Adams,
    Adaptive,
    DPMSolver,
    DPMSolverPP,
    DPMSolverPPSDE,
    EDMStochastic,
    Heun,
    Hybrid,
    UniPC,
)
from noise2action.diffusion.sde import Churn
from noise2action.diffusion.targets import EDM
from noise2action.diffusion.times import LogNormal
from noise2action.errors import ConfigError
from noise2action.evaluate.result import sampler_name
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
        ("ddim", {"switch": 0.2}, r"--switch: expected a sampler that has it \(hybrid, hybrid-reverse\)"),
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


def test_options_in_brackets() -> None:
    assert resolve("ddim(eta=0.25)") == DDIM(eta=0.25)
    assert resolve("heun( frame = edm )") == Heun(frame="edm")
    assert resolve("edm-stochastic(churn.amount=10, churn.low=0.5, frame=edm)") == EDMStochastic(
        churn=Churn(amount=10.0, low=0.5), frame="edm"
    )
    assert resolve("hybrid(first=ddpm(variance=beta), second=dpm-solver++-3m, switch=0.5)") == Hybrid(
        first=DDPM(variance="beta"), second=DPMSolverPP(order=3), switch=0.5
    )
    assert resolve("hybrid(first=unipc)", switch=2.0) == Hybrid(first=UniPC(), switch=2.0)
    assert grid_named("log-snr(low=-3, high=3.5)") == LogSNR(low=-3.0, high=3.5)
    objective = objective_named(
        path="schedule(name=cosine, steps=50)",
        target="edm",
        times="log_normal(mean=-1)",
        weight="min_snr(gamma=3)",
        span=(0.0, 1.0),
    )
    assert objective.path == Schedule(steps=50, name="cosine")
    assert (objective.target, objective.times) == (EDM(data_std=1.0), LogNormal(mean=-1.0))
    assert objective.weight == MinSNR(gamma=3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ddim(eta)", r"--sampler: expected option=value, got 'eta'"),
        ("ddim(et=0.5)", r"--sampler: unknown key 'et'.*did you mean 'eta'"),
        ("ddim(eta=2)", r"--sampler: expected eta in \[0, 1\]"),
        ("ddim(eta=0.5", r"--sampler: expected a name, or name\(option=value, ...\), got 'ddim\(eta=0.5'"),
        ("hybrid(first=dim)", r"--sampler: expected a sampler by name, got 'dim'.*did you mean 'ddim'"),
        ("hybrid(first=heun)", r"same number of network calls a step, got 2 and 1"),
        ("", r"--sampler: expected a name"),
    ],
)
def test_brackets_that_hold_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(text)


def test_an_evaluation_is_named_after_its_sampling() -> None:
    assert sampler_name(Sampling()) == "ddim"
    assert sampler_name(Sampling(DDIM(eta=0.5), Karras())) == "ddim(eta=0.5) on karras"
    assert sampler_name(Sampling(DPMSolverPPSDE())) == "dpm-solver++-sde-2m"
    assert sampler_name(Sampling(EDMStochastic(churn=Churn(amount=5.0)), nfe=9)).startswith("edm_stochastic(churn=")
