"""The parts of the networks as formulas over their weights by name, in plain tensor code."""

import math

import torch
from torch.nn.functional import layer_norm, linear, silu


def dense(w, name, x):
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def sinusoids(phase, dim):
    """Return sines and cosines of phase [L] x the geometric frequencies, in float64 after a float32 embedding."""
    exponent = torch.arange(dim // 2) / (dim // 2 - 1)
    angle = phase.float()[:, None] * torch.exp(-math.log(1e4) * exponent)
    return torch.cat([angle.sin(), angle.cos()], 1).double()


def attention(w, name, x, memory, *, heads, allowed=None):
    """Return multi-head attention, a head and a softmax at a time; allowed [B, L, N] is True where x sees memory."""
    width = x.shape[-1]
    d = width // heads
    q = dense(w, f"{name}.query", x)
    kv = dense(w, f"{name}.key_value", memory)
    k, v = kv[..., :width], kv[..., width:]
    found = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        scores = torch.einsum("bld,bnd->bln", q[..., part], k[..., part]) / math.sqrt(d)
        weights = scores.exp() if allowed is None else scores.exp() * allowed
        found.append(torch.einsum("bln,bnd->bld", weights / weights.sum(-1, keepdim=True), v[..., part]))
    return dense(w, f"{name}.out", torch.cat(found, -1))


def feed_forward(w, name, x):
    return dense(w, f"{name}.layers.3", silu(dense(w, f"{name}.layers.0", x)))


def normed(w, name, x):
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def time_layers(w, t, *, dim, scale):
    return dense(w, "time_layers.2", silu(dense(w, "time_layers.0", sinusoids(t * scale, dim))))
