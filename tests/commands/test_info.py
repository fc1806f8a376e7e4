import pytest

from noise2action.commands.info import sizes
from noise2action.nets import FusionMLPConfig
from noise2action.policies import DiffusionConfig, LatentDiffusionConfig, RegressionConfig
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
