"""How a network is told about the observation: the names that every backbone shares, and what each refuses.

| name | the observation enters as |
|---|---|
| concat | further inputs: numbers or channels beside the noisy chunk, or tokens before it |
| film | a scale and a shift of every feature inside a block (Perez et al. 2018) |
| adaln | shift, scale and gate of the normalised input of each layer (Peebles & Xie 2023) |
| cross_attention | keys and values; the trajectory asks (Vaswani et al. 2017) |
"""

from collections.abc import Mapping
from typing import Literal, get_args

from ..errors import ConfigError

Conditioning = Literal["concat", "film", "cross_attention", "adaln"]
"""How the observation enters a network."""


def check_conditioning(chosen: str, refused: Mapping[str, str]) -> None:
    """Raise `ConfigError` where `chosen` is no conditioning, or `refused` by a network for the reason given."""
    sensible = [name for name in get_args(Conditioning) if name not in refused]
    if chosen not in sensible:
        why = f": {refused[chosen]}" if chosen in refused else ""
        raise ConfigError(f"expected conditioning to be one of {', '.join(sensible)}, got {chosen!r}{why}")
