"""Receding-horizon control: keep the observation history, plan a chunk, execute `stride` of its actions, plan again."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SchemaError, ShapeError
from ..policies.policy import Policy
from ..shapes import Chunk
from ..timing import Stopwatch


class Executor:
    """Turns a stateless policy into one action a tick, for B robots that run in lockstep."""

    def __init__(
        self, policy: Policy, generators: Sequence[torch.Generator], *, watch: Stopwatch | None = None
    ) -> None:
        self.policy = policy
        self.watch = watch or Stopwatch()
        """Milliseconds of each stage of `act`: history, encode, denoise, decode."""
        self.planned = False
        """Whether the last tick planned."""
        self.last_chunk: Chunk | None = None
        """The chunk being executed, in robot units."""
        self._generators = list(generators)
        self._history: list[Mapping[str, Tensor]] = []
        self._tick = 0

    def act(
        self, observation: Mapping[str, NDArray[np.generic]], *, active: Bool[np.ndarray, "B"] | None = None
    ) -> Float[np.ndarray, "B A"]:
        """Return the action of this tick for `observation` (name -> [B, ...], robot units).

        Rows where `active` is False are not planned for; their actions mean nothing. Before there are `obs_steps`
        observations the first one is repeated, as in the padded windows of training.
        """
        spec = self.policy.spec
        with self.watch("history"):
            self._observe(observation)
        phase = self._tick % spec.stride
        self.planned = phase == 0
        if self.planned:
            self._plan(active)
        self._tick += 1
        assert self.last_chunk is not None
        return self.last_chunk[:, phase - spec.first_action].cpu().numpy()

    def _observe(self, observation: Mapping[str, NDArray[np.generic]]) -> None:
        batch = len(self._generators)
        newest: dict[str, Tensor] = {}
        for feature in self.policy.schema.observations:
            if feature.name not in observation:
                continue  # the policy says at its next plan whether it can do without
            value = observation[feature.name]
            if value.dtype.kind not in "fiub":
                raise SchemaError(f"observation {feature.name!r}: expected numbers, got {value.dtype}")
            # A text may be said by its position or as an embedding.
            shape = value.shape[1:] if feature.kind == "text" else feature.shape
            if value.shape != (batch, *shape):
                hint = feature.remedy(value.shape[1:])
                raise ShapeError(f"observation {feature.name!r}: expected {(batch, *shape)}, got {value.shape}{hint}")
            dtype = np.float32 if feature.is_state or value.dtype.kind == "f" else value.dtype
            # A view that runs backwards, such as of a picture with red and blue exchanged, is no tensor.
            newest[feature.name] = torch.from_numpy(np.ascontiguousarray(value, dtype=dtype))
        steps = self.policy.spec.obs_steps
        self._history = [*(self._history or [newest] * (steps - 1)), newest][-steps:]

    def _steps(self, name: str) -> list[Tensor]:
        """Return a feature at every step of the history; what is said counts as it was said last."""
        steps = [step[name] for step in self._history]
        if self.policy.schema.features[name].kind == "text":
            return steps[-1:] * len(steps)
        return steps

    def _plan(self, active: Bool[np.ndarray, "B"] | None) -> None:
        rows = list(range(len(self._generators))) if active is None else np.flatnonzero(active).tolist()
        # What some of the steps miss is missing.
        names = [name for name in self._history[-1] if all(name in step for step in self._history)]
        history = {name: torch.stack(self._steps(name), dim=1)[rows] for name in names}
        part = self.policy.plan(history, generator=[self._generators[k] for k in rows], watch=self.watch)
        self.last_chunk = part.new_zeros((len(self._generators), *part.shape[1:]))
        self.last_chunk[rows] = part
