from dataclasses import replace

import pytest
import torch

from noise2action.commands.info import sizes
from noise2action.data.normalize import Affine, Normalizer
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.text import HashedNGramsConfig
from noise2action.nets import FusionMLPConfig
from noise2action.policies import DiffusionConfig, LatentDiffusionConfig, RegressionConfig
from noise2action.schema import Feature, Schema
from small_policies import SPEC, build

NET = FusionMLPConfig(widths=(32,), time_dim=8)
OBSERVED = 2 * 4  # two steps of a position, and of the cosine and sine of a heading


@pytest.mark.parametrize(
    ("policy", "chunk"),
    [(DiffusionConfig, 8 * 2), (RegressionConfig, 8 * 2), (LatentDiffusionConfig, 4 * 4)],
)
def test_encoder_and_network_are_counted_as_they_are_called(policy, chunk):
    network = (chunk + OBSERVED + 8) * 32 + 32 * chunk
    assert sizes(build(policy(spec=SPEC, net=NET))) == [
        ("encoder", "0 parameters, 0 M multiply-adds at batch 1"),
        ("network call", f"{network + 32 + chunk:,} parameters, {network / 1e6:.3g} M multiply-adds at batch 1"),
    ]


def test_goals_away_from_0_and_texts_without_sentences_are_counted():
    goal, said = Feature("aim", (2,), low=0.7, high=1.0, goal=True), Feature("said", (1,), kind="text", dtype="int64")
    action = Feature("action", (2,))
    one = Affine("identity", torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    encoder = EncoderConfig(text=HashedNGramsConfig(width=16), text_dim=3)
    config = RegressionConfig(spec=replace(SPEC, horizon=4), net=NET, encoder=encoder)
    policy = config.build(Schema((goal, said), action), Normalizer({"aim": one, "action": one})).eval()
    network = (4 * 2 + 2 + 3 + 8) * 32 + 32 * 4 * 2
    assert policy.backbone.multiply_adds() == (16 * 3, network)
