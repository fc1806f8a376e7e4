"""The trained weights: float32 ones that are stepped, a copy that computes, an average; each one flat tensor.

One flat tensor is one memory pass an operation instead of one call a parameter; the modules' parameters are views of
it.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..encoders.fuse import ObservationEncoder
from ..errors import CheckpointError, TrainingError
from ..policies import AnyPolicy
from ..policies.checkpoint import load_weights
from .config import TrainConfig


class Weights:
    """Policy, its working copy, its average and its optimiser.

    With `half` the working copy is bf16: it computes loss and gradients, while the float32 weights are stepped.
    Autocast would cast every weight at every use.
    """

    def __init__(self, build: Callable[[], AnyPolicy], config: TrainConfig, *, half: bool) -> None:
        self.policy = build()
        self.ema = build().eval().requires_grad_(requires_grad=False)
        self.ema.load_state_dict(self.policy.state_dict())
        self.worker = build() if half else self.policy
        # Statistics of the training (batch norm, losses by time) belong to all three; they are not averaged.
        for other in (self.worker, self.ema):
            share_buffers(self.policy, other)
        self._flat, matrices = flatten(self.policy, torch.float32)
        self._average, _ = flatten(self.ema, torch.float32)
        self._working = flatten(self.worker, torch.bfloat16)[0] if half else self._flat
        self._gradient = torch.zeros_like(self._flat)
        self._parts = {
            "matrices": nn.Parameter(self._flat[:matrices]),
            "vectors": nn.Parameter(self._flat[matrices:]),
        }
        self._parts["matrices"].grad, self._parts["vectors"].grad = (
            self._gradient[:matrices],
            self._gradient[matrices:],
        )
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self._parts["matrices"]], "weight_decay": config.weight_decay},
                {"params": [self._parts["vectors"]], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self._refresh()

    @torch.no_grad()
    def prepare(self) -> None:
        """Read what fresh encoders are told to learn from: published weights, embeddings of sentences."""
        for module in self.policy.modules():
            if isinstance(module, ObservationEncoder):
                module.prepare()
        self._average.copy_(self._flat)
        self._refresh()

    @torch.no_grad()
    def begin(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from the weights of another training, the average too; `CheckpointError` unless they fit exactly."""
        for module in (self.policy, self.ema):
            load_weights(module, tensors, where="the weights to start from")
        self._refresh()

    @torch.no_grad()
    def step(self, *, rate: float, grad_clip: float) -> float:
        """Take one step with the gradients that the worker has, and clear them; return their norm before clipping."""
        start = 0
        for p in in_order(self.worker):
            part = self._gradient[start : start + p.numel()]
            part.zero_() if p.grad is None else part.copy_(p.grad.flatten())
            p.grad = None
            start += p.numel()
        norm = float(self._gradient.norm())
        if not math.isfinite(norm):
            raise TrainingError(f"expected a finite gradient, got {norm}: lower --train.learning-rate")
        if norm > grad_clip:
            self._gradient.mul_(grad_clip / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._refresh()
        return norm

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the average: `average <- decay average + (1 - decay) weights`."""
        self._average.lerp_(self._flat, 1 - decay)

    def _refresh(self) -> None:
        if self._working is not self._flat:
            self._working.copy_(self._flat)

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimiser's moments and step counts by name."""
        parts: dict[Tensor, str] = {p: name for name, p in self._parts.items()}
        state = self.optimizer.state
        return {f"{parts[p]}.{key}": value for p, entry in state.items() for key, value in entry.items()}

    @torch.no_grad()
    def restored(self, optimizer_state: dict[str, Tensor]) -> None:
        """Continue from `optimizer_state` (strictly), after the weights of policy and average were loaded."""
        if not optimizer_state:  # saved before the first step
            self._refresh()
            return
        for name, p in self._parts.items():
            shapes = {"step": torch.Size(()), "exp_avg": p.shape, "exp_avg_sq": p.shape}
            entry = {key: optimizer_state.get(f"{name}.{key}") for key in shapes}
            for key, value in entry.items():
                if value is None or value.shape != shapes[key]:
                    got = None if value is None else tuple(value.shape)
                    raise CheckpointError(f"optim.safetensors: expected {name}.{key} {tuple(shapes[key])}, got {got}")
            self.optimizer.state[p] = entry
        self._refresh()


def share_buffers(owner: nn.Module, other: nn.Module) -> None:
    """Make the buffers of `other` those of `owner`: what one remembers while it trains, both have."""
    for name, module in other.named_modules():
        for key, _ in module.named_buffers(recurse=False):
            setattr(module, key, owner.get_buffer(f"{name}.{key}" if name else key))


def in_order(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters, matrices before vectors: weight decay is for matrices only."""
    return sorted(module.parameters(), key=lambda p: p.ndim <= 1)


@torch.no_grad()
def flatten(module: nn.Module, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return the parameters as one flat tensor, of which they become views, and how much of it is matrices."""
    parameters = in_order(module)
    flat = torch.cat([p.flatten() for p in parameters]).to(dtype)
    start = 0
    for p in parameters:
        p.data = flat[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return flat, sum(p.numel() for p in parameters if p.ndim > 1)
