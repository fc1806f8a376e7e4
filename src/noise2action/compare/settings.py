"""What a comparison was asked for, where it lies on the disk, and that neither changes on the way."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ..config import decode, encode
from ..envs.tasks import find as find_task
from ..errors import ConfigError, DataError, did_you_mean
from ..train.folder import read_json, write_json
from .methods import METHODS, Method, find
from .suites import tasks_of

BLOCK = 48
"""Episodes that advance together, and are saved together: whole batches of a plan (`EqualBatches`)."""
FRESH = 300_000
"""First seed of the episodes."""
MOST_FILMED = 20
"""Videos of a method: while episodes run, all their pictures are in memory, some 50 MB an episode."""
NO_PICTURES = "nearest"
"""The method that learns from states alone."""
FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """Everything that the table depends on."""

    suite: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    demonstrations: int = 200
    """Successful demonstrations of a task."""
    train_steps: int | None = None
    """Optimiser steps of a training; None for those of the task's recipe."""
    train_minutes: float | None = None
    """Minutes of a training instead; then the table cannot be repeated to the bit."""
    episodes: int = 200
    """Fresh episodes of a training."""
    seeds: int = 1
    """Trainings of a method."""
    seed: int = 0
    """First seed of trainings, and that of the demonstrations."""
    record: int = 2
    """Episodes whose video is kept; 0 draws no pictures at all."""
    data: str | None = None
    """Given demonstrations, of people or generated, instead of those that would be simulated."""
    take: tuple[str, ...] = ()
    """Runs that are trained already, instead of trainings here."""

    def __post_init__(self) -> None:
        """Reject numbers that leave nothing to compare."""
        least = {"demonstrations": 2, "episodes": 2, "seeds": 1, "seed": 0, "record": 0, "train_steps": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{flag(name)}: expected a number >= {low}, got {value}")
        if self.record > MOST_FILMED:
            raise ConfigError(
                f"--record: expected at most {MOST_FILMED}, whose pictures memory holds, got {self.record}: film fewer"
            )
        if self.train_minutes is not None and not 0 < self.train_minutes < math.inf:
            raise ConfigError(f"--train.minutes: expected a finite number above 0, got {self.train_minutes:g}")
        if self.train_minutes is not None and self.train_steps is not None:
            raise ConfigError("--train.minutes: expected a budget in minutes or in --train.steps, got both")
        if self.data is not None and len(self.tasks) != 1:
            raise ConfigError(f"--data: expected it with one task (--tasks), got {', '.join(self.tasks)}")
        self._check_names()

    def _check_names(self) -> None:
        known = tasks_of(self.suite)
        for name in self.tasks:
            if name.partition("@")[0] not in known:
                raise ConfigError(
                    f"--tasks: expected a task of {self.suite}, got {name!r}; {did_you_mean(name, known)}"
                )
            find_task(name)
        for name in self.methods:
            find(name)
        for flag_name, names in (("--tasks", self.tasks), ("--methods", self.methods)):
            if not names or len(set(names)) != len(names):
                raise ConfigError(f"{flag_name}: expected distinct names, got {' '.join(names) or 'none'}")
        if NO_PICTURES in self.methods and self.pictured:
            raise ConfigError(
                f"--methods: expected no {NO_PICTURES} where pictures are observed, which have no distance, got it for "
                f"{self.pictured[0]}: leave it out"
            )
        if not any(METHODS[name].training for name in self.methods):
            raise ConfigError(f"--methods: expected one that learns at least, got {', '.join(self.methods)}")

    @property
    def pictured(self) -> tuple[str, ...]:
        """The tasks that observe pictures."""
        return tuple(name for name in self.tasks if any(f.kind == "image" for f in find_task(name).schema.observations))

    @property
    def compared(self) -> tuple[Method, ...]:
        """The methods in the order of the table; people cannot be asked for further demonstrations."""
        left_out = "demonstrator" if self.data is not None else ""
        return tuple(METHODS[name] for name in METHODS if name in self.methods and name != left_out)

    @property
    def training_seeds(self) -> range:
        """Seeds of the trainings."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def blocks(self) -> tuple[range, ...]:
        """Seeds of the episodes, block by block; the same for every method and training."""
        last = FRESH + self.episodes
        return tuple(range(first, min(first + BLOCK, last)) for first in range(FRESH, last, BLOCK))


QUICK: Mapping[str, int] = {"demonstrations": 50, "train_steps": 1_000, "episodes": 50}
"""What takes minutes instead."""


def flag(name: str) -> str:
    """Return the option that sets a field."""
    return f"--{name.replace('train_', 'train.')}".replace("_", "-")


def settle(out: Path, settings: Settings) -> None:
    """Write the settings of a new comparison; `ConfigError` that names the one which `out` was begun without."""
    path = out / "settings.json"
    if not path.exists():
        if out.exists() and any(p for p in out.iterdir() if p.name != ".lock"):
            raise ConfigError(
                f"--out: expected a new folder or a comparison, got {out} with other files: choose another"
            )
        write_json(path, {"format": FORMAT, **encode(settings)})
        return
    before = read(out)
    for field in fields(Settings):
        was, now = getattr(before, field.name), getattr(settings, field.name)
        if was != now:
            raise ConfigError(
                f"{flag(field.name)}: expected {_told(was)}, which {out} was begun with, got {_told(now)}: "
                "use the same command, or another --out"
            )


def read(out: Path) -> Settings:
    """Return the settings of the comparison in `out`; `DataError` where there is none of this format."""
    body = read_json(out / "settings.json")
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise DataError(f"{out / 'settings.json'}: expected a comparison of format {FORMAT}: choose another --out")
    return decode(Settings, body, where=str(out / "settings.json"))


def _told(value: object) -> str:
    if value is None:
        return "the recipe's own"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Place:
    """Where the parts of one task lie."""

    out: Path
    task: str

    @property
    def folder(self) -> Path:
        """Everything of the task."""
        return self.out / "tasks" / self.name

    @property
    def name(self) -> str:
        """The task's name, for files."""
        return re.sub(r"[^\w.-]", "_", self.task)

    @property
    def demonstrations(self) -> Path:
        """The data set that all methods are trained on."""
        return self.folder / "demonstrations.npz"

    @property
    def demonstrated(self) -> Path:
        """How the demonstrations came about; there when they are whole."""
        return self.folder / "demonstrations.json"

    def run(self, training: str, seed: int) -> Path:
        """Return the run folder of a training."""
        return self.folder / "runs" / f"{training}-seed{seed}"

    def trained(self, training: str, seed: int) -> Path:
        """Return the file that is there when a training has ended."""
        return self.run(training, seed) / "trained.json"

    def block(self, method: str, seed: int, first: int) -> Path:
        """Return the file of the episodes from seed `first`; it is there when they are whole."""
        return self.folder / "episodes" / method / f"training{seed}-from{first}.json"

    def film(self, method: str, episode: int) -> Path:
        """Return the video of one episode of a method."""
        return self.folder / "films" / f"{method}-seed{episode}.mp4"

    def timing(self, method: str) -> Path:
        """Return the file of latency and network evaluations."""
        return self.folder / "timing" / f"{method}.json"
