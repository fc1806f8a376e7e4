"""Nearest neighbour: the chunk that was demonstrated where the observations were most like these.

The plainest imitation there is: it learns nothing, keeps every training window, and cannot do what nobody did. A
learned policy that is not better has learned no more than to look up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.normalize import Normalizer
from ..data.windows import Batch
from ..diffusion.objective import Losses, masked_mean, without_padding
from ..diffusion.tableau import OnStep
from ..encoders.state import StatePart
from ..errors import ConfigError
from ..schema import Schema
from ..seeds import Generators
from ..timing import Stopwatch
from .policy import PolicySpec

MOST_WINDOWS = 10_000_000


@dataclass(frozen=True)
class NearestConfig:
    """Nearest neighbour among the training windows; trains in no steps."""

    spec: PolicySpec = field(default_factory=PolicySpec)
    """Step conventions."""
    windows: int = 0
    """Training windows that are kept; training sets it."""

    def __post_init__(self) -> None:
        """Reject a negative or absurd number of windows."""
        if not 0 <= self.windows <= MOST_WINDOWS:
            raise ConfigError(f"expected windows in [0, {MOST_WINDOWS}], got {self.windows}")

    def build(self, schema: Schema, normalizer: Normalizer) -> "NearestPolicy":
        """Return the policy with room for `windows` windows; `ConfigError` for observations without a distance."""
        return NearestPolicy(self, schema, normalizer)


class NearestPolicy(nn.Module):
    """Observation history to the stored chunk of the nearest training window.

    Near is the Euclidean distance between windows of normalised states, angles as cosine and sine: what the encoder of
    the other policies sees. Of windows equally near the first is taken.
    """

    def __init__(self, config: NearestConfig, schema: Schema, normalizer: Normalizer) -> None:
        super().__init__()
        unlike = [f.name for f in schema.observations if not f.is_state]
        if unlike:
            raise ConfigError(
                f"expected a task that is observed in states for nearest neighbour, got {unlike}: pictures and words "
                "have no distance here; choose another policy"
            )
        self.config, self.schema, self.spec, self.normalizer = config, schema, config.spec, normalizer
        self.states = StatePart(schema.observations, layers=(), obs_steps=config.spec.obs_steps)
        self.seen = nn.Buffer(torch.zeros(config.windows, self.states.state.dim))
        """Windows of normalised observations, [W, D]."""
        self.chunks = nn.Buffer(torch.zeros(config.windows, config.spec.horizon, schema.action_dim))
        """What was done there, normalised, [W, H, A]."""

    def remembering(self, windows: Batch) -> "NearestPolicy":
        """Return the policy that keeps these normalised `windows`; those of before are forgotten."""
        other = replace(self.config, windows=len(windows)).build(self.schema, self.normalizer)
        other.seen = other.states.state(windows.observations).vector
        other.chunks = windows.actions.clone()
        return other.eval()

    def nearest(self, observations: Mapping[str, Tensor]) -> Int[Tensor, "B"]:
        """Return which window is nearest to each of the normalised `observations`, name -> [B, O, ...]."""
        asked: Float[Tensor, "B D"] = self.states.state(observations).vector.to(self.seen.dtype)
        # By differences: by products the distance of a window to itself is a rounding error away from zero.
        distance = torch.cdist(asked, self.seen, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.argmin(1)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> Losses:
        """Return the squared error a sample, in normalised units; padded actions do not count. Nothing learns."""
        del generator
        chunk = self.chunks[self.nearest(batch.observations)].to(batch.actions.dtype)
        error = (chunk - without_padding(batch.actions, batch.valid)) ** 2
        return Losses(masked_mean(error, batch.valid), torch.ones(len(error), device=error.device))

    @torch.no_grad()
    def plan(
        self,
        history: Mapping[str, Tensor],
        committed: Tensor | None = None,
        *,
        generator: Generators | None = None,
        watch: Stopwatch | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the chunk [B, H, A] of the nearest window in robot units; see `Policy.plan`. Nothing is drawn."""
        del generator, on_step
        if committed is not None:
            self.spec.check_committed(committed, dim=self.schema.action_dim)
        watch, action = watch or Stopwatch(), self.schema.action.name
        with watch("encode"):
            self.states.check(history)
            observed = {f.name: self.normalizer.encode(f.name, history[f.name]) for f in self.schema.observations}
        with watch("denoise"):
            chunk = self.chunks[self.nearest(observed)]
        with watch("decode"):
            return self.spec.keeping(committed, self.spec.commanded(self.normalizer.decode(action, chunk), history))
