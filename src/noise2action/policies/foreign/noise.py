"""Noise schedules and samplers of diffusers, by their options, to our objective and sampling and back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal, cast

import torch

from ...config import kind
from ...diffusion.grids import Leading
from ...diffusion.objective import Diffusion
from ...diffusion.paths import AnyPath, Schedule, Table
from ...diffusion.samplers import Scheduler
from ...diffusion.targets import AnyTarget, Clean, Epsilon
from ...errors import CheckpointError, ConfigError
from ..diffusion import Sampling

COSINE = "squaredcos_cap_v2"
"""diffusers' name of the cosine schedule."""
SCHEDULES = ("linear", "scaled_linear", COSINE)
PREDICTIONS: dict[str, AnyTarget] = {"epsilon": Epsilon(), "sample": Clean()}


@dataclass(frozen=True)
class Noise:
    """What diffusers' schedulers are told, and the number of network calls."""

    scheduler: Literal["ddpm", "ddim"]
    steps: int
    """Training steps T."""
    schedule: str
    beta_start: float
    beta_end: float
    prediction: str
    clip: float | None
    nfe: int

    def __post_init__(self) -> None:
        """Reject schedules that cannot be built."""
        if not 1 <= self.nfe <= self.steps <= 100_000:
            raise CheckpointError(
                f"expected 1 <= num_inference_steps <= num_train_timesteps <= 100000, got {self.nfe} and {self.steps}"
            )

    @property
    def path(self) -> AnyPath:
        """The forward process."""
        if self.schedule == COSINE:
            return Schedule(steps=self.steps, name="cosine")
        return Table(betas=_betas(self.schedule, self.beta_start, self.beta_end, self.steps))

    @property
    def objective(self) -> Diffusion:
        """Path and target."""
        return Diffusion(path=self.path, target=PREDICTIONS[self.prediction])

    @property
    def sampling(self) -> Sampling:
        """Sampler, grid ("leading", as both code bases leave it), number of calls and clip."""
        return Sampling(sampler=Scheduler(self.scheduler), grid=Leading(self.steps), nfe=self.nfe, clip=self.clip)


def noise_of(objective: Diffusion, sampling: Sampling) -> Noise:
    """Return the options under which diffusers does the same; `ConfigError` that names what it cannot do."""
    path = objective.path
    if not isinstance(path, Table):
        raise cannot("policy.objective.path", "table or schedule", path)
    prediction = next((name for name, target in PREDICTIONS.items() if target == objective.target), None)
    if prediction is None:
        raise cannot("policy.objective.target", "epsilon or clean", objective.target)
    if objective.span != (0.0, 1.0):
        raise cannot("policy.objective.span", "(0, 1)", objective.span)
    if not isinstance(sampling.sampler, Scheduler) or sampling.grid != Leading(path.steps):
        raise cannot(
            "policy.sampling",
            f"diffusers' DDPM or DDIM on the grid leading(table={path.steps})",
            f"our {in_words(sampling.sampler)} on {in_words(sampling.grid)}: choose one with --sampler",
        )
    if sampling.guidance or sampling.guided:
        raise cannot("policy.sampling.guidance", "0", sampling.guidance or sampling.guided)
    first, last = path.betas[0], path.betas[-1]
    known = {
        COSINE: Schedule(steps=path.steps, name="cosine").betas,
        **{name: _betas(name, first, last, path.steps) for name in SCHEDULES if name != COSINE},
    }
    for schedule, betas in known.items():
        if max(abs(a - b) for a, b in zip(betas, path.betas, strict=True)) <= 1e-12:
            start, end = (1e-4, 0.02) if schedule == COSINE else (first, last)
            name = sampling.sampler.name
            return Noise(name, path.steps, schedule, start, end, prediction, sampling.clip, sampling.nfe)
    raise cannot("policy.objective.path", f"the betas of {', '.join(known)}", path)


def _betas(schedule: str, start: float, end: float, steps: int) -> tuple[float, ...]:
    if not (0 < start < 1 and 0 < end < 1):
        raise CheckpointError(f"expected beta_start and beta_end in (0, 1), got {start} and {end}")
    if schedule == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    else:
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    # The ends as they were given: interpolation and squares round.
    return (start, *betas[1:-1].tolist(), end)[:steps]


def cannot(name: str, wanted: str, got: object) -> ConfigError:
    """Return the error for what LeRobot cannot express."""
    return ConfigError(f"{name}: expected {wanted} to export to LeRobot, got {in_words(got)}")


MOST_SAID = 5
"""Values that are told one by one."""


def in_words(value: object) -> str:
    """Return a value as a user writes it: a part of a configuration by its name, with what is not usual of it."""
    if is_dataclass(value) and not isinstance(value, type):
        held = [
            (f.name, getattr(value, f.name), f.default_factory() if callable(f.default_factory) else f.default)
            for f in fields(value)
            if f.init
        ]
        said = ", ".join(f"{name}={in_words(got)}" for name, got, usual in held if got != usual)
        return f"{kind(type(value))}({said})" if said else kind(type(value))
    if value is None or value in ((), []):
        return "none"
    if isinstance(value, tuple | list):
        items = cast("Sequence[object]", value)
        if len(items) > MOST_SAID:
            return f"{len(items)} values"
        said = ", ".join(map(in_words, items))
        return said if isinstance(value, list) else f"({said})"
    return f"{value:g}" if isinstance(value, float) else str(value)
