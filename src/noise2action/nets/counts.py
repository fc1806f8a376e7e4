"""How large a network is: its parameters, and its arithmetic and memory a call."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
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


def kept(call: Callable[[], object], *, besides: nn.Module) -> int:
    """Return the bytes that one `call` keeps for its backward pass, besides the weights of a module; each once."""
    weights = {p.untyped_storage().data_ptr() for p in besides.parameters()}
    found: dict[int, torch.UntypedStorage] = {}  # holds them, so that no two have one place

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return x

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda x: x):
        call()
    return sum(storage.nbytes() for storage in found.values())


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_rest: object, **_more: object) -> int:
    return sdpa_flop_count(query, key, value)
