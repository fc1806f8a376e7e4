"""What a network is told about the observation: the type between encoders and networks."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """An encoded observation history.

    `vector` is [B, D]: every observed step, flattened. It is computed once per observation and shared by all
    network calls of a plan.
    """

    vector: Float[Tensor, "B D"]
