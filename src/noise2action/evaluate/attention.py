"""Which tokens of the observation a policy's network attends to, for networks told by cross-attention."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..nets.attention import Attention
from .explain import Subject, padded
from .moments import Moments


@dataclass(frozen=True, eq=False)
class Attended:
    """How a trajectory shares its attention among what is observed, at N moments."""

    shares: dict[str, Float[Tensor, "N"]]
    """By modality; what is left of 1 is the diffusion time's, where that is a token."""
    places: dict[str, Float[Tensor, "N O h w"]]
    """By camera or goal image that has a token a place: of every observed step that counts, the oldest first."""


def attended(subject: Subject, moments: Moments) -> Attended | None:
    """Return what the network attends to; None where it does not ask tokens of the observation.

    The softmax of every cross-attention, averaged over the actions of the chunk, heads, blocks and network calls of a
    plan: where it looks, not what it makes of it. Blocks over the tokens themselves may have mixed them before.
    """
    encoder = subject.encoder
    if encoder.token_dim is None or encoder.config.token_dim is None:
        return None
    count = len(encoder.token_owners)
    found: list[Tensor] = []
    for rows in padded(len(moments)):
        told = {name: x[rows] for name, x in moments.history.items()}
        with _crossed(subject.backbone.net, count) as weights:
            subject.executed(told, rows.tolist())
        if not weights:
            return None
        # Guidance asks for several conditions at once: the first is what was observed.
        found.append(torch.stack([w[: len(rows)] for w in weights]).mean(0))
    tokens = torch.cat(found)[: len(moments)]
    owned = {name: tokens[:, encoder.token_owners == n] for n, name in enumerate(encoder.modalities)}
    places = {
        name: owned[name].unflatten(1, (part.steps, *part.map_size))
        for name, part in subject.cameras.items()
        if part.map_size is not None
    }
    return Attended({name: x.sum(1) for name, x in owned.items()}, places)


@contextmanager
def _crossed(net: nn.Module, count: int) -> Generator[list[Float[Tensor, "B N"]]]:
    """Record the weights of the observation's `count` tokens, which are the last, in every cross-attention."""
    found: list[Tensor] = []

    def hook(module: nn.Module, asked: tuple[Tensor, Tensor, Tensor | None], _: Tensor) -> None:
        assert isinstance(module, Attention)
        if asked[0] is not asked[1]:
            found.append(module.weights(*asked).mean((1, 2))[:, -count:])

    handles = [module.register_forward_hook(hook) for module in net.modules() if isinstance(module, Attention)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
