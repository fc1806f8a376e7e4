"""Normaliser, encoder and network: what diffusion and regression policies share to the last weight."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..condition import Condition
from ..data.normalize import Normalizer
from ..encoders.fuse import EncoderConfig
from ..nets import AnyNetConfig
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

    def normalised_actions(self, actions: Tensor) -> Tensor:
        """Return actions in robot units as the network sees them."""
        return self.normalizer.encode(self.schema.action.name, actions)

    def robot_actions(self, chunk: Tensor) -> Tensor:
        """Return the network's actions in robot units."""
        return self.normalizer.decode(self.schema.action.name, chunk)
