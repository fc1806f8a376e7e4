"""How a policy is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..errors import ConfigError
from .ema import AnyEMA, PowerEMA


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser, budget and bookkeeping of a training run."""

    steps: int = 20_000
    """Budget in optimiser steps; ignored where `minutes` is given."""
    minutes: float | None = None
    """Budget in minutes of training. The learning rate then follows the clock, so that such a run is not repeatable."""
    batch_size: int = 256
    """Windows a step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 1e-2
    """Decoupled weight decay of matrices; biases have none."""
    warmup_steps: int = 200
    """Steps of linear warm-up before the cosine decay."""
    final_lr: float = 0.005
    """Learning rate at the end, as a fraction of the peak."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    ema: AnyEMA = field(default_factory=PowerEMA)
    """Average of the weights; it is what is evaluated and deployed."""
    ema_every: int = 4
    """Steps between updates of the average (its decay is raised to this power)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of forward and backward passes; weights are stepped in float32. auto: bf16 where the processor computes in it."""
    threads: int = 0
    """Threads of the CPU; 0 leaves torch's choice."""
    log_every: int = 100
    """Steps between records of the training loss."""
    validate_minutes: float = 2.0
    """Minutes between validations on held-out episodes; one more at the end."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; one more at the end."""
    save_steps: int | None = None
    """Steps between checkpoints, instead of minutes."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder too."""

    def __post_init__(self) -> None:
        """Reject budgets and rates out of range."""
        positive = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "grad_clip": self.grad_clip,
            "ema_every": self.ema_every,
            "log_every": self.log_every,
            "validate_minutes": self.validate_minutes,
            "save_minutes": self.save_minutes,
            "minutes": 1 if self.minutes is None else self.minutes,
            "save_steps": 1 if self.save_steps is None else self.save_steps,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"train.{name}: expected a positive number, got {value}")
        if min(self.warmup_steps, self.weight_decay, self.threads, self.final_lr) < 0 or self.threads > 1024:
            raise ConfigError("train: expected warmup_steps, weight_decay, final_lr >= 0 and 0 <= threads <= 1024")
        if not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(f"train.betas: expected two decays in [0, 1), got {self.betas}")

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return the fraction of the budget that is spent, in [0, 1]."""
        if self.minutes is None:
            return min(1.0, step / self.steps)
        return min(1.0, elapsed_s / (60 * self.minutes))

    def rate(self, step: int, elapsed_s: float) -> float:
        """Return the learning rate: linear warm-up, then cosine decay over the budget."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step, elapsed_s)))
        return self.learning_rate * warm * (self.final_lr + (1 - self.final_lr) * cosine)

    def half_precision(self, device: torch.device) -> bool:
        """Return whether to compute in bf16 on `device`."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if device.type == "cuda":
            return torch.cuda.is_bf16_supported()
        # Emulated bf16 is slower than fp32: only processors with the instructions gain.
        found = torch.cpu.get_capabilities()
        return device.type == "cpu" and any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
