"""Checks of an object that somebody else wrote: each ends well or in one finding with its remedy, and all are run."""

import random
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import torch

from ..errors import MissingExtraError

Level = Literal["ok", "finding", "skipped"]
"""ok: kept. finding: broken. skipped: could not be looked at because another check found something."""

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Level
    message: str
    """What was expected and what came; of an `ok` check, what was seen."""
    remedy: str = ""


OnCheck = Callable[[Finding], None]
"""Called with every check as it ends, those that are `ok` included."""


class Broken(Exception):  # noqa: N818 - what a check says, not what went wrong in it
    """Raised by a check: what was expected and what came, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One promise of a contract."""

    name: str
    run: Callable[[Subject], str]
    """Returns what was seen; raises `Broken`. Anything else that it raises is the subject's own error."""
    remedy: str
    """What to do about an error of the subject's own."""
    needs: tuple[str, ...] = ()
    """Checks without which this one says nothing."""


def examine(subject: Subject, checks: Sequence[Check[Subject]], *, on_check: OnCheck | None = None) -> list[Finding]:
    """Return what the checks find, nothing where the contract is kept.

    A check is skipped where one that it needs was not `ok`. `MissingExtraError` passes through.
    """
    found: dict[str, Finding] = {}
    for check in checks:
        first = next((name for name in check.needs if found[name].level != "ok"), None)
        if first is not None:
            found[check.name] = Finding(check.name, "skipped", f"nothing to be seen before {first!r} is mended")
        else:
            found[check.name] = _outcome(check, subject)
        if on_check is not None:
            on_check(found[check.name])
    return [finding for finding in found.values() if finding.level == "finding"]


def _outcome(check: Check[Subject], subject: Subject) -> Finding:
    try:
        return Finding(check.name, "ok", check.run(subject))
    except MissingExtraError:
        raise
    except Broken as broken:
        return Finding(check.name, "finding", str(broken), broken.remedy)
    except (Exception, SystemExit) as error:
        return Finding(check.name, "finding", f"expected no error, got {told(error)}", check.remedy)


def told(error: BaseException) -> str:
    """Return an error in one line: its type, its words, and where it was raised."""
    words = " ".join(str(error).split()) or "without a word"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {words[:300]}{where}"


@contextmanager
def world(seed: int) -> Generator[None]:
    """Seed the global generators of Python, numpy and torch for the block, and put them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
