"""Normaliser, encoder and network: what diffusion and regression policies share to the last weight."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..condition import Condition
from ..config import kind
from ..data.normalize import Normalizer
from ..encoders.fuse import EncoderConfig
from ..errors import ConfigError
from ..nets import AnyNetConfig
from ..nets.attention import ObservationTokens
from ..nets.counts import kept, multiply_adds
from ..schema import Schema
from ..shapes import Chunk
from .policy import PolicySpec


class Backbone(nn.Module):
    """From an observation history to the network's prediction for a chunk."""

    def __init__(
        self,
        config: AnyNetConfig,
        *,
        encoder: EncoderConfig,
        spec: PolicySpec,
        schema: Schema,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.spec, self.schema, self.normalizer = spec, schema, normalizer
        self.encoder = encoder.build(schema.observations, spec.obs_steps)
        self.net = config.build(
            horizon=spec.horizon,
            action_dim=schema.action_dim,
            condition_dim=self.encoder.dim,
            token_dim=self.encoder.token_dim,
        )
        if encoder.token_dim is not None and not self.attends:
            raise ConfigError(
                f"expected a network that attends to tokens with encoder.token_dim={encoder.token_dim}, got "
                f"{kind(type(config))}, told by {getattr(config, 'conditioning', 'concat')}: leave token_dim null, or "
                "use net=transformer, or conditioning=cross_attention of dit or unet1d"
            )

    @property
    def attends(self) -> bool:
        """Whether the network asks the observation's tokens."""
        return any(isinstance(module, ObservationTokens) for module in self.net.modules())

    def forward(self, x: Chunk, t: Tensor, condition: Condition) -> Chunk:
        """Return the network's prediction, computed in the precision of its weights."""
        dtype = next(self.net.parameters()).dtype
        return self.net(x.to(dtype), t, condition.to(dtype))

    def condition(self, history: Mapping[str, Tensor]) -> Condition:
        """Return the condition of a history in robot units; `SchemaError` or `ShapeError` where it does not fit."""
        self.encoder.check(history)
        return self.encoder(
            {
                f.name: self.normalizer.encode(f.name, history[f.name]) if f.is_state else history[f.name]
                for f in self.schema.observations
                if f.name in history
            }
        )

    def chunk_like(self, condition: Condition) -> Chunk:
        """Return an empty chunk of the right shape, dtype and device."""
        vector = condition.vector
        return vector.new_empty(len(vector), self.spec.horizon, self.schema.action_dim)

    def multiply_adds(self) -> tuple[int, int]:
        """Return those of encoding an observation, and of one network call on it, both at batch 1."""
        return self._counted(multiply_adds)

    def activations(self) -> tuple[int, int]:
        """Return the bytes that training keeps of encoding an observation, and of one network call on it, at batch 1.

        In the precision of the weights.
        """
        return self._counted(lambda call: kept(call, besides=self))

    def _counted(self, count: Callable[[Callable[[], object]], int]) -> tuple[int, int]:
        history = self.encoder.example()
        condition = self.encoder(history)
        chunk, t = torch.zeros_like(self.chunk_like(condition)), torch.ones(())
        return count(lambda: self.encoder(history)), count(lambda: self(chunk, t, condition))

    def normalised_actions(self, actions: Tensor) -> Tensor:
        """Return actions in robot units as the network sees them."""
        return self.normalizer.encode(self.schema.action.name, actions)

    def robot_actions(self, chunk: Tensor) -> Tensor:
        """Return the network's actions in robot units."""
        return self.normalizer.decode(self.schema.action.name, chunk)
