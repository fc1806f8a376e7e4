"""What numbers a flag accepts, told by the flag's name before anything runs."""

import math

from ..errors import ConfigError


def at_least(flag: str, value: int | None, low: int) -> None:
    """Raise `ConfigError` unless `value` is None or at least `low`."""
    if value is not None and not value >= low:
        raise ConfigError(f"{flag}: expected a number >= {low}, got {value}")


def between(flag: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless `value` lies in [low, high]."""
    if not low <= value <= high:
        raise ConfigError(f"{flag}: expected a number from {low:g} to {high:g}, got {value:g}")


def above_zero(flag: str, value: float | None) -> None:
    """Raise `ConfigError` unless `value` is None, or finite and above 0."""
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{flag}: expected a number above 0, got {value:g}")
