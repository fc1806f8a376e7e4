import math

import pytest
import torch
from torch.nn.functional import layer_norm
from written_out import attention, feed_forward, normed

from noise2action.nets.attention import Attention, Block, Positions, causal

close = torch.testing.assert_close


def random(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.4)
    return module.double().eval()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ALLOWED = torch.tensor([[True, False, True, True, False], [True] * 5, [False, False, False, False, True]])


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("allowed", [None, ALLOWED])
def test_attention_is_its_formula_written_out(heads, allowed):
    module = random(Attention(8, heads=heads))
    x, memory = draw(3, 4, 8), draw(3, 5, 8, seed=2)
    expected = attention(
        dict(module.named_parameters(prefix="a")),
        "a",
        x,
        memory,
        heads=heads,
        allowed=None if allowed is None else allowed[:, None].double(),
    )
    there = None if allowed is None else allowed[:, None, None]
    close(module(x, memory, there), expected, rtol=0, atol=1e-12)
    # Its weights are those with which it mixes the values.
    weights, v = module.weights(x, memory, there).double(), module.key_value(memory)[..., 8:]
    mixed = weights @ v.unflatten(2, (heads, -1)).transpose(1, 2)
    close(module.out(mixed.transpose(1, 2).flatten(2)), expected, rtol=0, atol=1e-6)


def test_queries_ask_and_the_memory_answers():
    """One thing in memory is what everyone finds, whatever they ask; and equal memories cannot be told apart."""
    module = random(Attention(8, heads=2))
    x, one = draw(3, 4, 8), draw(3, 1, 8, seed=2)
    found = module(x, one)
    close(found, module.out(module.key_value(one)[..., 8:]).expand(3, 4, 8), rtol=0, atol=1e-12)
    close(module(x, one.expand(3, 7, 8)), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("crosses", [False, True])
def test_a_block_is_its_formula_written_out(crosses):
    block = random(Block(8, heads=2, expansion=3, dropout=0.0, crosses=crosses, modulated=False))
    w = dict(block.named_parameters(prefix="b"))
    x, memory = draw(3, 4, 8), draw(3, 5, 8, seed=2)
    h = normed(w, "b.norms.0", x)
    y = x + attention(w, "b.attention", h, h, heads=2)
    if crosses:
        y = y + attention(w, "b.cross", normed(w, "b.norms.1", y), memory, heads=2)
    y = y + feed_forward(w, "b", normed(w, f"b.norms.{1 + crosses}", y))
    close(block(x, memory=memory if crosses else None), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("crosses", [False, True])
def test_a_modulated_block_is_adaln_written_out(crosses):
    block = random(Block(8, heads=2, expansion=3, dropout=0.0, crosses=crosses, modulated=True))
    w = dict(block.named_parameters(prefix="b"))
    x, memory, told = draw(3, 4, 8), draw(3, 5, 8, seed=2), draw(3, 1, (9 if crosses else 6) * 8, seed=3)
    parts = list(told.split(8, -1))

    def around(x, layer):
        shift, scale, gate = parts.pop(0), parts.pop(0), parts.pop(0)
        return x + gate * layer(layer_norm(x, (8,)) * (1 + scale) + shift)

    y = around(x, lambda h: attention(w, "b.attention", h, h, heads=2))
    if crosses:
        y = around(y, lambda h: attention(w, "b.cross", h, memory, heads=2))
    y = around(y, lambda h: feed_forward(w, "b", h))
    close(block(x, memory=memory if crosses else None, modulation=told), y, rtol=0, atol=1e-12)
    assert torch.equal(block(x, memory=memory if crosses else None, modulation=0 * told), x)


def test_positions_are_sines_and_cosines_of_the_place():
    places = Positions(8).of(torch.zeros(2, 5, 8))
    for place in range(5):
        for k in range(4):
            angle = place / 10_000 ** (k / 3)
            close(places[place, [k, 4 + k]], torch.tensor([math.sin(angle), math.cos(angle)]), rtol=0, atol=1e-6)


def test_a_causal_mask_lets_each_see_what_is_in_front_and_itself():
    assert causal(3, before=0, like=torch.zeros(1)).int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    assert causal(2, before=2, like=torch.zeros(1)).int().tolist() == [
        [[[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]]
    ]


def test_dropout_is_for_training_only():
    module = Attention(8, heads=2, dropout=0.5)
    x = torch.randn(2, 4, 8)
    assert not torch.equal(module.train()(x, x), module(x, x))
    assert torch.equal(module.eval()(x, x), module(x, x))
