"""Exponential moving averages of the weights."""

from dataclasses import dataclass

from ..errors import ConfigError, first_wrong


@dataclass(frozen=True)
class PowerEMA:
    """Decay `min(limit, 1 - (1 + step)^-power)`: short memory early, long memory late."""

    power: float = 0.75
    """2/3 suits long runs, 3/4 short ones."""
    limit: float = 0.9995
    """Largest decay a step."""

    def __post_init__(self) -> None:
        """Reject decays outside [0, 1)."""
        if wrong := first_wrong(self, power=self.power > 0, limit=0 <= self.limit < 1):
            raise ConfigError(f"expected power > 0 and limit in [0, 1), got {wrong}")

    def decay(self, step: int) -> float:
        """Return the decay of update `step`, counted from 0."""
        return min(self.limit, 1 - (1 + step) ** -self.power)


@dataclass(frozen=True)
class ConstantEMA:
    """The same decay at every step."""

    limit: float = 0.999
    """Decay a step."""

    def __post_init__(self) -> None:
        """Reject decays outside [0, 1)."""
        if not 0 <= self.limit < 1:
            raise ConfigError(f"expected a decay in [0, 1), got {self.limit}")

    def decay(self, step: int) -> float:
        """Return the decay."""
        return self.limit


AnyEMA = PowerEMA | ConstantEMA
