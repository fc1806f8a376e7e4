"""Typed errors: each message says what was expected, what came, and what to do.

The command line prints the message as one line and exits with `exit_code`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class Noise2ActionError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 2


class ConfigError(Noise2ActionError):
    """A configuration value, key or option that does not exist or is out of range."""


class SchemaError(Noise2ActionError):
    """Features that do not match what a policy, recipe or task declares."""


class ShapeError(Noise2ActionError):
    """A tensor of another shape or dtype than the interface states."""


class PathError(Noise2ActionError):
    """A noise path, target or grid that cannot be combined."""


class SolverError(Noise2ActionError):
    """A solver that cannot reach its tolerance, or a network that returns no usable numbers."""


class DataError(Noise2ActionError):
    """A data file that is missing, damaged, inconsistent or not finite."""


class CheckpointError(Noise2ActionError):
    """A checkpoint that is missing, damaged, or of another format version."""


class TrainingError(Noise2ActionError):
    """A training that cannot go on, such as a loss that is not finite."""


class TaskError(Noise2ActionError):
    """A task or environment that is unknown or breaks its contract."""


class MissingExtraError(Noise2ActionError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'noise2action[{extra}]'")
        self._arguments = (package, extra)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Return how to make it again: worker processes send their errors."""
        return type(self), self._arguments


class StorageError(Noise2ActionError):
    """The disk is full or failed; what was saved before is intact."""

    exit_code = 3


class RunLockedError(Noise2ActionError):
    """Another process is working in this run folder."""

    exit_code = 4


def first_wrong(config: object, **right: bool) -> str | None:
    """Return `name=value` of the first field of `config` that is not `right`, for an error; None where all are."""
    return next((f"{name}={getattr(config, name)!r}" for name, holds in right.items() if not holds), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `known: a, b, c (did you mean b?)` for an error message about an unknown `word`."""
    names = sorted(known)
    plain = {name.lstrip("-"): name for name in names}  # the dashes of two flags make them no more alike
    close = get_close_matches(word.lstrip("-"), plain, n=1)
    hint = f" (did you mean {plain[close[0]]!r}?)" if close else ""
    return f"known: {', '.join(names) or 'none'}{hint}"
