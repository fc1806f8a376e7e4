import pytest
import torch
from torch import nn

from noise2action.condition import Condition
from noise2action.nets import DiTConfig, FusionMLPConfig, TransformerConfig, UNet1dConfig
from noise2action.nets.attention import Attention
from noise2action.nets.counts import kept, multiply_adds, parameters

SIZES = {"horizon": 16, "action_dim": 2, "condition_dim": 10, "token_dim": 6}


def call(net, *, mask=None):
    x, t, condition = torch.zeros(1, 16, 2), torch.ones(()), Condition(torch.zeros(1, 10), torch.zeros(1, 3, 6), mask)
    return lambda: net(x, t, condition)


def test_a_matrix_costs_its_size_once_a_row():
    net = FusionMLPConfig(widths=(64, 32), time_dim=8).build(**SIZES)
    inputs = 32 + 10 + 8
    assert multiply_adds(call(net)) == inputs * 64 + 64 * 32 + 32 * 32
    assert parameters(net) == inputs * 64 + 64 * 32 + 32 * 32 + 64 + 32 + 32


@pytest.mark.parametrize("mask", [None, torch.ones(1, 3, dtype=torch.bool)])
def test_attention_costs_queries_times_keys_twice(mask):
    net = TransformerConfig(width=32, layers=2, encoder_layers=1, heads=4, time_dim=8).build(**SIZES)
    width, actions, told = 32, 16, 4
    feed, square = 8 * width * width, width * width
    time = 8 * width + square
    encoder = told * (4 * square + feed) + 2 * told * told * width
    own = actions * 4 * square + 2 * actions * actions * width
    cross = (2 * actions + 2 * told) * square + 2 * actions * told * width
    ends = 3 * 6 * width + 2 * actions * 2 * width
    assert multiply_adds(call(net, mask=mask)) == time + encoder + 2 * (own + cross + actions * feed) + ends


def test_a_dit_pays_for_its_modulation_once_a_call():
    net = DiTConfig(width=32, layers=2, heads=4, time_dim=8).build(**SIZES)
    square, feed = 32 * 32, 8 * 32 * 32
    told = 8 * 32 + square + 10 * 32 + square + 14 * square
    blocks = 2 * (16 * (4 * square + feed) + 2 * 16 * 16 * 32)
    assert multiply_adds(call(net)) == told + blocks + 2 * 16 * 2 * 32


def test_convolutions_count_once_a_place():
    config = UNet1dConfig(widths=(8,), kernel=3, groups=4, time_dim=8)
    net = config.build(**SIZES)
    step = 8 * 32 + 32 * 8
    film = 4 * 18 * 16
    first = 16 * (3 * 2 * 8 + 3 * 8 * 8 + 2 * 8)
    others = 3 * 16 * 2 * 3 * 8 * 8
    assert multiply_adds(call(net)) == step + film + first + others + 16 * (3 * 8 * 8 + 8 * 2)


@pytest.mark.parametrize("batch", [1, 6])
def test_what_is_kept_for_the_backward_pass_is_each_layers_input_once(batch):
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    x = torch.zeros(batch, 5)
    assert kept(lambda: net(x), besides=net) == 4 * batch * (5 + 7)
    with torch.no_grad():
        assert kept(lambda: net(x), besides=net) == 4 * batch * (5 + 7)


def test_a_token_more_keeps_what_attention_makes_of_it():
    net = Attention(8, heads=2)

    def bytes_of(tokens):
        return kept(lambda: net(torch.zeros(1, 3, 8), torch.zeros(1, tokens, 8)), besides=net)

    assert bytes_of(11) - bytes_of(10) == 4 * (8 + 2 * 8)  # the token, its key and its value
