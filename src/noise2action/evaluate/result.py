"""An evaluation: what was run, each episode, and the numbers with their intervals."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..config import decode, kind
from ..diffusion.samplers import NAMED, AnySampler
from ..errors import ConfigError, DataError, did_you_mean
from ..machine import hardware
from ..policies import Sampling
from ..storage import atomic_write
from .latency import Latency, Percentiles
from .modes import Modes, mode_statistics
from .rollouts import EpisodeResult
from .statistics import Estimate, PairedSuccess, bootstrap_mean, paired_score, paired_success, wilson

T = TypeVar("T")

VERSION = 1
SMOOTHNESS = ("jerk", "boundary_jump", "within_jump")
ENTRY = ("seed", "success", "score", "steps", "route", *SMOOTHNESS)
TOLD = "instruction"
"""Further entry of episodes that were told something."""
SETTING = ("told", "hidden")
"""Further keys of evaluations that do not leave all to the seeds."""


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class About:
    """What was evaluated, and on what."""

    task: str
    policy: str
    """Name shown in tables."""
    weights: str
    """Which weights ran: ema, or model for those that are not averaged."""
    sampler: str
    nfe: int
    """Network evaluations of one plan."""
    control_hz: float
    stride: int
    """Actions executed before the next plan."""
    action_unit: str = ""
    told: str | None = None
    """What every episode was told, in place of what its seed draws."""
    hidden: tuple[str, ...] = ()
    """Features that the policy was not given."""
    sampler_seed: int = 0
    step: int = 0
    """Optimiser steps of the checkpoint."""
    hardware: str = field(default_factory=hardware)
    threads: int = field(default_factory=torch.get_num_threads)
    """torch threads of each rollout process."""
    created: str = field(default_factory=now)

    @property
    def period_ms(self) -> float:
        """The control period: one action every so many milliseconds."""
        return 1e3 / self.control_hz

    @property
    def way(self) -> str:
        """The sampler, and in words what was told and hidden: `ddim, told 'go left', without instruction`."""
        told = [] if self.told is None else [f"told {self.told!r}"]
        return ", ".join([self.sampler, *told, *(f"without {name}" for name in self.hidden)])


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy in one task. Every rate, mean and interval is derived from the episodes."""

    about: About
    results: tuple[EpisodeResult, ...]
    latency: Latency | None = None
    reference: Mapping[str, float] | None = None
    """Share of the demonstrations by route, where the task has several."""

    def __post_init__(self) -> None:
        """Reject evaluations without episodes."""
        if not self.results:
            raise ValueError("expected at least one episode, got none")

    @property
    def seeds(self) -> list[int]:
        """Environment seeds, in the order of the episodes."""
        return [result.seed for result in self.results]

    @cached_property
    def success(self) -> Estimate:
        """Success rate with Wilson's interval."""
        return wilson(sum(result.success for result in self.results), len(self.results))

    @cached_property
    def score(self) -> Estimate:
        """Mean score with its bootstrap interval."""
        return bootstrap_mean([result.score for result in self.results], 0, bounds=(0.0, 1.0))

    @cached_property
    def smoothness(self) -> dict[str, Estimate]:
        """Mean jerk, boundary jump and jump within chunks; a mean is absent where fewer than two episodes have one."""
        measured = {name: [getattr(result, name) for result in self.results] for name in SMOOTHNESS}
        known = {name: [value for value in values if value is not None] for name, values in measured.items()}
        return {name: bootstrap_mean(values, 0) for name, values in known.items() if len(values) > 1}

    @property
    def routes(self) -> dict[str, float] | None:
        """Share of the episodes by route; None for a task without routes."""
        taken = [result.route for result in self.results if result.route is not None]
        return {name: taken.count(name) / len(taken) for name in sorted(set(taken))} if taken else None

    @property
    def sentences(self) -> list[str | None]:
        """What each episode was told; None in a task without words."""
        return [result.instruction for result in self.results]

    @property
    def told(self) -> dict[str, "Evaluation"]:
        """The episodes of each instruction apart; empty for a task that tells nothing."""
        sentences = sorted({result.instruction for result in self.results if result.instruction is not None})
        return {
            sentence: replace(self, results=tuple(r for r in self.results if r.instruction == sentence), reference=None)
            for sentence in sentences
        }

    @property
    def modes(self) -> Modes | None:
        """The routes against those of the demonstrations, where both are known."""
        taken = [result.route for result in self.results if result.route is not None]
        return mode_statistics(taken, self.reference) if taken and self.reference else None

    def to_json(self) -> str:
        """Return the JSON document; `from_json` reads it back."""
        latency = self.latency
        document = {
            "version": VERSION,
            **{k: value for k, value in asdict(self.about).items() if k not in SETTING or value not in (None, ())},
            "success_rate": self.success.value,
            "success_ci95": [self.success.low, self.success.high],
            "score_mean": self.score.value,
            "score_ci95": [self.score.low, self.score.high],
            "episodes": len(self.results),
            "seeds": self.seeds,
            "latency_ms": latency and asdict(latency.total),
            "latency_stages_ms": latency and {name: asdict(value) for name, value in latency.stages.items()},
            "latency_calls": latency and latency.calls,
            "latency_threads": latency and latency.threads,
            "routes": self.routes,
            "reference": self.reference and dict(self.reference),
            "modes": self.modes and asdict(self.modes),
            "smoothness": {
                name: {"mean": mean.value, "ci95": [mean.low, mean.high]} for name, mean in self.smoothness.items()
            },
            "per_episode": [_entry(result) for result in self.results],
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Return the evaluation that `to_json` wrote; its derived numbers follow from the episodes again.

        Raises `DataError` for another version, unknown, missing or mistyped keys, and rates, means or counts that
        contradict the episodes.
        """
        try:
            document = json.loads(text)
            if not isinstance(document, dict) or document.get("version") != VERSION:
                raise DataError(f"expected an evaluation of format version {VERSION}: evaluate the run again")
            found = _evaluation(document)
        except (json.JSONDecodeError, ConfigError) as error:
            raise DataError(f"expected an evaluation in JSON, got: {error}") from error
        written = json.loads(found.to_json())
        _same_keys(document, written, "evaluation")
        for key in ("success_rate", "score_mean", "episodes", "seeds", "routes"):
            if document[key] != written[key]:
                raise DataError(f"evaluation.{key}: expected {written[key]} from its episodes, got {document[key]}")
        return found

    def write(self, path: Path) -> None:
        """Write the JSON document to `path`, as a whole or not at all. Raises `StorageError`."""
        atomic_write(path, self.to_json().encode())


def _entry(result: EpisodeResult) -> dict[str, Any]:
    names = ENTRY if result.instruction is None else (*ENTRY, TOLD)
    return {name: getattr(result, name) for name in names}


@dataclass(frozen=True)
class Comparison:
    """Policy a against policy b on the same episodes: differences are a - b."""

    a: About
    b: About
    success: PairedSuccess
    score: Estimate


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Return the paired comparison; `DataError` unless both ran the same task, with the same seeds, told the same.

    Something may be hidden from one of them: what it costs is such a comparison.
    """
    if (a.about.task, a.seeds) != (b.about.task, b.seeds):
        raise DataError(
            f"expected the same task and seeds, got {a.about.task} ({len(a.seeds)} seeds) and {b.about.task} "
            f"({len(b.seeds)} seeds): evaluate both policies with the same seeds"
        )
    if a.sentences != b.sentences:
        raise DataError(
            f"expected episodes that are told the same, got other words in those of {a.about.policy} ({a.about.way}) "
            f"than of {b.about.policy} ({b.about.way}): evaluate both with the same --say"
        )
    return Comparison(
        a=a.about,
        b=b.about,
        success=paired_success([r.success for r in a.results], [r.success for r in b.results]),
        score=paired_score([r.score for r in a.results], [r.score for r in b.results], 0),
    )


def _evaluation(document: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation of a parsed document; derived values are not looked at."""
    entries = document.get("per_episode")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError("evaluation.per_episode: expected a list of at least one episode: evaluate the run again")
    for entry in entries:
        _same_keys(set(entry) - {TOLD}, ENTRY, "evaluation.per_episode")
    latency = None
    if document.get("latency_ms") is not None:
        latency = Latency(
            total=decode(Percentiles, document["latency_ms"], where="evaluation.latency_ms"),
            stages=_by_name(Percentiles, document, "latency_stages_ms"),
            calls=decode(int, document.get("latency_calls"), where="evaluation.latency_calls"),
            threads=decode(int, document.get("latency_threads"), where="evaluation.latency_threads"),
        )
    about = {f.name: document[f.name] for f in fields(About) if f.name in document}
    return Evaluation(
        about=decode(About, about, where="evaluation"),
        results=tuple(decode(EpisodeResult, entry, where="evaluation.per_episode") for entry in entries),
        latency=latency,
        reference=None if document.get("reference") is None else _by_name(float, document, "reference"),
    )


def _by_name(declared: type[T], document: Mapping[str, Any], key: str) -> dict[str, T]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise DataError(f"evaluation.{key}: expected an object, got {value!r}: evaluate the run again")
    return {str(name): decode(declared, item, where=f"evaluation.{key}.{name}") for name, item in value.items()}


def _same_keys(got: Collection[str], expected: Collection[str], where: str) -> None:
    for key in got:
        if key not in expected:
            raise DataError(f"{where}: unknown key {key!r}; {did_you_mean(key, expected)}")
    for key in expected:
        if key not in got:
            raise DataError(f"{where}: expected the key {key!r}, got none: evaluate the run again")


def name_of(sampler: AnySampler) -> str | None:
    """Return the name that users type for `sampler`; None where its options have no name of their own."""
    return next((name for name, known in NAMED.items() if known == sampler), None)


def sampler_name(sampling: Sampling) -> str:
    """Return the sampler's name, with options that no name stands for, its grid and guidance: `ddim(eta=0.5), w=2`."""
    sampler = sampling.sampler
    name = name_of(sampler)
    if name is None:
        fresh = type(sampler)()
        changed = [f for f in fields(sampler) if getattr(sampler, f.name) != getattr(fresh, f.name)]
        name = f"{kind(type(sampler))}({', '.join(f'{f.name}={getattr(sampler, f.name)}' for f in changed)})"
    grid = kind(type(sampling.grid))
    on = "" if grid == "trailing" else f" on {grid}"
    by = [f", {told.modality} w={told.weight:g}" for told in sampling.guided]
    return "".join([name, on, f", w={sampling.guidance:g}" if sampling.guidance else "", *by])
