"""Training of generative models in one process: AdamW on one flat tensor, cosine rate, averaged weights."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import ConfigError, TrainingError
from ..generative import AnyModel, AnyModelConfig
from ..seeds import derive, generator
from ..shapes import Noisy
from .ema import AnyEMA, PowerEMA
from .memory import keep_freed_memory
from .weights import flatten, in_order


@dataclass(frozen=True)
class GenerativeTrain:
    """Optimiser and budget."""

    steps: int = 3000
    """Budget in optimiser steps; ignored where `seconds` is given."""
    seconds: float | None = None
    """Budget in seconds. The learning rate then follows the clock, so that such a training is not repeatable."""
    batch_size: int = 512
    """Samples a step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Steps of linear warm-up before the cosine decay."""
    final_lr: float = 0.01
    """Learning rate at the end, as a fraction of the peak."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's moment decays."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices; biases have none."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    ema: AnyEMA = field(default_factory=lambda: PowerEMA(limit=0.995))
    """Average of the weights; it is what is returned."""

    def __post_init__(self) -> None:
        """Reject budgets and rates out of range."""
        positive = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "grad_clip": self.grad_clip,
            "seconds": 1 if self.seconds is None else self.seconds,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected a positive number, got {value}")
        if min(self.warmup_steps, self.weight_decay, self.final_lr) < 0:
            raise ConfigError("expected warmup_steps, weight_decay and final_lr >= 0")
        if not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(f"betas: expected two decays in [0, 1), got {self.betas}")

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return the fraction of the budget that is spent, in [0, 1]."""
        return min(1.0, step / self.steps if self.seconds is None else elapsed_s / self.seconds)

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate: linear warm-up, then cosine decay over the budget."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warm * (self.final_lr + (1 - self.final_lr) * cosine)


@dataclass(frozen=True)
class Status:
    """What a progress display shows."""

    step: int
    progress: float
    """Fraction of the budget spent."""
    loss: float
    """Mean since the last status."""


STATUS_EVERY = 50
"""Steps between statuses; the loss is looked at then only, so that steps need not wait for it."""


def fit(
    config: AnyModelConfig,
    x: Noisy,
    labels: Int[Tensor, "n"] | None = None,
    *,
    train: GenerativeTrain | None = None,
    seed: int = 0,
    on_status: Callable[[Status], None] | None = None,
) -> AnyModel:
    """Return the model with averaged weights, trained on samples `x` [n, *shape] and their `labels`.

    It trains on the device of `x`. Raises `TrainingError` where the loss is not finite.
    """
    train = train or GenerativeTrain()
    if (labels is not None) != bool(config.classes):
        raise ConfigError(f"expected labels exactly where there are classes, got {config.classes} classes")
    torch.manual_seed(derive(seed, "weights"))
    keep_freed_memory()
    model = config.build().to(x.device)
    model.fit_scale(x)
    average = config.build().to(x.device)
    average.load_state_dict(model.state_dict())
    weights = _Flat(model, average, train)
    draws, noise = (generator(seed, name, device=x.device) for name in ("batches", "noise"))
    began, step, recent = time.monotonic(), 0, x.new_zeros(())
    while (spent := train.progress(step, time.monotonic() - began)) < 1:
        rows = torch.randint(len(x), (train.batch_size,), generator=draws, device=x.device)
        told = None if labels is None else labels[rows]
        loss = model.loss(x[rows], told, generator=noise).value.mean()
        loss.backward()
        weights.step(train.rate(step, spent), train.ema.decay(step))
        recent += loss.detach()
        step += 1
        if step % STATUS_EVERY == 0:
            mean = float(recent) / STATUS_EVERY
            if not math.isfinite(mean):
                raise TrainingError(f"expected a finite loss, got {mean} at step {step}: lower the learning rate")
            if on_status is not None:
                on_status(Status(step, spent, mean))
            recent.zero_()
    return average.eval().requires_grad_(requires_grad=False)


class _Flat:
    """Weights, gradient and average, each one flat tensor that the modules' parameters are views of."""

    def __init__(self, model: AnyModel, average: AnyModel, train: GenerativeTrain) -> None:
        flat, matrices = flatten(model, torch.float32)
        self._weights, (self._average, _) = flat, flatten(average, torch.float32)
        self._gradient, self._clip = torch.zeros_like(flat), train.grad_clip
        start = 0
        for p in in_order(model):
            p.grad = self._gradient[start : start + p.numel()].view(p.shape)  # backward adds into it
            start += p.numel()
        parts = [torch.nn.Parameter(part) for part in (flat[:matrices], flat[matrices:])]
        for part, gradient in zip(parts, (self._gradient[:matrices], self._gradient[matrices:]), strict=True):
            part.grad = gradient
        decays = (train.weight_decay, 0.0)
        self._optimizer = torch.optim.AdamW(
            [{"params": [p], "weight_decay": decay} for p, decay in zip(parts, decays, strict=True)],
            lr=train.learning_rate,
            betas=train.betas,
            fused=True,
        )

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Take one step with the gradient, clipped, clear it, and move the average."""
        self._gradient.mul_((self._clip / self._gradient.norm()).clamp(max=1.0))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._gradient.zero_()
        self._average.lerp_(self._weights, 1 - decay)
