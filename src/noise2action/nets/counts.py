"""How large a network is: its parameters, and its arithmetic a call."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def parameters(module: nn.Module) -> int:
    """Return the number of trainable numbers in `module`, trained or frozen."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def multiply_adds(call: Callable[[], object]) -> int:
    """Return the multiply-adds of all matrix products, convolutions and attention in one `call`; 1 is 2 FLOPs.

    Activations, norms and sums are not counted: they are a few per cent of a network's arithmetic.
    """
    # torch counts attention on accelerators, and on a CPU only where the kernel is not fused.
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        call()
    return counter.get_total_flops() // 2


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_rest: object, **_more: object) -> int:
    return sdpa_flop_count(query, key, value)
