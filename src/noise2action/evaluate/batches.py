"""Plans that do not depend, to the last bit, on who is planned for beside one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.windows import Batch
from ..diffusion.objective import Losses
from ..diffusion.tableau import OnStep
from ..policies.policy import Policy
from ..seeds import Generators
from ..timing import Stopwatch

ROWS = 16
"""Robots that are planned for at a time. More of them cost less each; fewer leave less to fill up."""


class EqualBatches:
    """A policy that always plans for `ROWS` robots: matrix products of another size round otherwise.

    Contacts make whole episodes of such last bits. Rows that nobody asked for repeat the last one.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.spec, self.schema = policy.spec, policy.schema

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the policy's own loss."""
        return self._policy.loss(batch, generator=generator)

    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return a chunk [B, H, A] in robot units; see `Policy.plan`. `generator`: one a row, or None."""
        assert not isinstance(generator, torch.Generator), "noise that rows share depends on all of them"
        chunks: list[Tensor] = []
        count = len(next(iter(history.values())))
        for first in range(0, count, ROWS):
            rows = range(first, min(first + ROWS, count))
            filling = ROWS - len(rows)
            filled = [*rows, *[rows[-1]] * filling]
            own = None if generator is None else [generator[k] for k in rows]
            planned = self._policy.plan(
                {name: values[filled] for name, values in history.items()},
                None if committed is None else committed[filled],
                generator=None if own is None else [*own, *(torch.Generator() for _ in range(filling))],
                watch=watch,
                on_step=on_step,
            )
            chunks.append(planned[: len(rows)])
        return torch.cat(chunks)
