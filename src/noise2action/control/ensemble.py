"""Temporal ensembling: plan every tick, and execute the average of what all live chunks say about this tick."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..policies.policy import Policy
from ..timing import Stopwatch
from .executor import Executor


def temporal_ensemble(actions: Float[Tensor, "K B A"], *, decay: float) -> Float[Tensor, "B A"]:
    """Return the average of K actions meant for one tick, oldest first, with weights `w_i = exp(-decay i)`, i from 0.

    The oldest weighs most; `decay` 0 is the plain mean. It averages numbers. An angle must not wrap between chunks. The
    mean of 6-D rotations has no orthonormal columns, but Gram-Schmidt makes them so again where the rotation is used;
    quaternions must not be averaged, because q and -q are the same rotation.

    **Source:** Zhao et al. 2023 (ACT), section IV.
    """
    weights = torch.exp(-decay * torch.arange(len(actions), dtype=torch.float64, device=actions.device))
    return torch.einsum("k,kba->ba", (weights / weights.sum()).to(actions.dtype), actions)


class TemporalEnsemble(Executor):
    """An executor that plans every tick, whatever the policy's stride, and smooths by averaging.

    It suits policies whose consecutive plans agree. One that draws anew which of several ways to go is averaged
    between them: use the receding-horizon `Executor` for it.
    """

    def __init__(
        self,
        policy: Policy,
        generators: Sequence[torch.Generator],
        *,
        decay: float = 0.01,
        watch: Stopwatch | None = None,
    ) -> None:
        check_decay(decay)
        super().__init__(policy, generators, watch=watch)
        self._decay = decay
        self._chunks: list[Tensor] = []

    def act(
        self, observation: Mapping[str, NDArray[np.generic]], *, active: Bool[np.ndarray, "B"] | None = None
    ) -> Float[np.ndarray, "B A"]:
        """Return the averaged action of this tick; see `Executor.act`."""
        with self.watch("history"):
            self._observe(observation)
        self._plan(active)
        self.planned = True
        assert self.last_chunk is not None
        spec = self.policy.spec
        # A chunk from k ticks ago says at -first_action + k what to do now.
        self._chunks = [*self._chunks, self.last_chunk][-(spec.horizon + spec.first_action) :]
        ages = range(len(self._chunks) - 1, -1, -1)
        said = [chunk[:, age - spec.first_action] for chunk, age in zip(self._chunks, ages, strict=True)]
        return temporal_ensemble(torch.stack(said), decay=self._decay).cpu().numpy()


def check_decay(decay: float) -> None:
    """Raise `ConfigError` unless `decay` is a finite number from 0."""
    if not (math.isfinite(decay) and decay >= 0):
        raise ConfigError(f"expected an ensemble decay m >= 0 (0.01 is usual, 0 the plain mean), got {decay:g}")
