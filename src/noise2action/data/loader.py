"""Loader: batches from arrays that lie normalised on the device, in an order that is a pure function of the seed."""

import warnings
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..seeds import generator
from .actions import Absolute, AnyActionSpace
from .episodes import ACTION, Array, Episodes
from .normalize import Normalizer
from .windows import Batch, Windows

Augment = Callable[[Batch, torch.Generator], Batch]
"""Returns a changed batch; all its randomness comes from the generator."""


class Loader:
    """Batches of windows, served by one gather a feature.

    Every feature of `normalizer` is encoded once and kept on `device` (float32), those named in `raw` (images, texts)
    as they are; other arrays of the episodes are not touched. The order of an epoch depends on (seed, epoch) alone and
    augmentation on (seed, step) alone, so a run resumed at any step sees exactly the batches of an uninterrupted one.
    The last, partial batch of an epoch is dropped; where there are fewer windows than `batch_size`, all of them are one
    batch. `normalizer` is that of actions in `space`, which each window is expressed in as it is served; None is
    absolute.
    """

    def __init__(
        self,
        episodes: Episodes,
        windows: Windows,
        normalizer: Normalizer,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        space: AnyActionSpace | None = None,
        augment: Augment | None = None,
        raw: Collection[str] = (),
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"expected batch_size >= 1, got {batch_size}")
        if not np.array_equal(windows.ends, episodes.ends):
            raise DataError("expected windows made from these episodes' ends, got others")
        wanted = set(normalizer.affines)
        if ACTION not in wanted or not wanted | set(raw) <= set(episodes.arrays):
            raise DataError(
                f"expected arrays {sorted({*wanted, *raw, ACTION})}, got {sorted(episodes.arrays)} and a normaliser "
                f"for {sorted(wanted)}"
            )
        normalizer = normalizer.to(device)
        self.device = torch.device(device)
        self.seed = seed
        self.windows = windows
        self.batch_size = min(batch_size, len(windows))
        self._augment = augment
        self._features = {name: _resident(episodes, normalizer, name) for name in sorted(wanted)}
        self._features |= {name: _as_stored(episodes.arrays[name]).to(device) for name in sorted(raw)}
        self._space = None if space is None or isinstance(space, Absolute) else space
        self._normalizer = normalizer
        if self._space is not None:
            self._features[ACTION] = _in_own_units(episodes, ACTION).to(device)
            self._state = _in_own_units(episodes, self._space.reference).to(device)
        self._observation_steps = torch.from_numpy(windows.observations).to(device)
        self._action_steps = torch.from_numpy(windows.actions).to(device)
        self._valid = torch.from_numpy(windows.valid).to(device)
        self._shuffled: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.windows) // self.batch_size

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of `epoch` in order."""
        return (self.batch(epoch * len(self) + i) for i in range(len(self)))

    def batch(self, step: int) -> Batch:
        """Return the batch of training step `step`, counted from 0 over all epochs."""
        epoch, i = divmod(step, len(self))
        batch = self.gather(self._order(epoch)[i * self.batch_size : (i + 1) * self.batch_size])
        if self._augment is None:
            return batch
        return self._augment(batch, generator(self.seed, "augment", step, device=self.device))

    def gather(self, rows: Tensor) -> Batch:
        """Return the windows at `rows` [B] of `windows`, neither shuffled nor augmented (for evaluation)."""
        observed, acted = _take(self._observation_steps, rows), _take(self._action_steps, rows)
        observations = {n: _take(x, observed) for n, x in self._features.items() if n != ACTION}
        actions = _take(self._features[ACTION], acted)
        if self._space is not None:
            start = _take(self._state, acted[:, 0])
            actions = self._normalizer.encode(ACTION, self._space.encode(actions, start))
        return Batch(observations, actions, _take(self._valid, rows))

    def _order(self, epoch: int) -> Tensor:
        if self._shuffled is None or self._shuffled[0] != epoch:
            # Shuffled on the CPU: the order does not depend on the device.
            order = torch.randperm(len(self.windows), generator=generator(self.seed, "order", epoch))
            self._shuffled = epoch, order.to(self.device)
        return self._shuffled[1]


def _resident(episodes: Episodes, normalizer: Normalizer, name: str) -> Tensor:
    return normalizer.encode(name, _in_own_units(episodes, name).to(normalizer.device))


def _in_own_units(episodes: Episodes, name: str) -> Tensor:
    return torch.from_numpy(np.array(episodes.arrays[name], dtype=np.float32))


def _as_stored(array: Array) -> Tensor:
    """Return `array` as a tensor without a copy: images are large, and may lie on the disk."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing here writes
        return torch.from_numpy(array)


def _take(x: Tensor, steps: Tensor) -> Tensor:
    # index_select is two to three times as fast as x[steps].
    return x.index_select(0, steps.flatten()).unflatten(0, tuple(steps.shape))
