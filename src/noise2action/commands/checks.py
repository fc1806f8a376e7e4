"""What numbers a flag accepts, told by the flag's name before anything runs."""

from ..errors import ConfigError


def at_least(flag: str, value: int | None, low: int) -> None:
    """Raise `ConfigError` unless `value` is None or at least `low`."""
    if value is not None and not value >= low:
        raise ConfigError(f"{flag}: expected a number >= {low}, got {value}")
