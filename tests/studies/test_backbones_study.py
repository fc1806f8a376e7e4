"""The study of networks: every claim is recomputed from its table."""

import pytest
import torch
from control_claims import at, clauses, clocked, findings, rows, told, verdict

from noise2action.encoders.fuse import EncoderConfig
from noise2action.envs.two_routes import SCHEMA
from noise2action.evaluate.statistics import Estimate
from noise2action.nets.counts import multiply_adds, parameters
from noise2action.studies import backbones
from noise2action.studies.policies import JERK, SPEC, SUCCESS


@pytest.mark.slow
def test_claims_on_networks_follow_from_the_rows():
    table, text = rows("backbones"), findings("backbones").paragraph
    for measure, digits in ((SUCCESS, 1), (backbones.STRANGE, 4), (JERK, 1)):
        found = clauses(text, measure)
        for row in table:
            if row["policy"] == "diffusion" and row["network"] not in (backbones.BASE, backbones.LONGER):
                gap = at(row, f"{measure}, less that of mlp")
                assert f"{row['network']} {told(gap, digits)}" in found[0][verdict(gap)]
    (longer,) = (r for r in table if (r["network"], r["policy"]) == (backbones.LONGER, "diffusion"))
    gap = at(longer, f"{SUCCESS}, less that of mlp")
    back = Estimate(-gap.value, -gap.high, -gap.low, gap.n)
    assert "mlp (" in clauses(text, SUCCESS)[1][verdict(back)]
    for row in table:
        if row["policy"] == "diffusion":
            size = f"{row['parameters']:,} parameters, {row['multiply-adds a call']:,} multiply-adds a call"
            speed = f"{clocked(row, backbones.RATE, digits=0)} samples/s"
            plan = f"{clocked(row, backbones.P50)} / {clocked(row, backbones.P99)} ms"
            assert f"{row['network']} {size}, {speed}, {plan}." in text


@pytest.mark.slow
def test_networks_are_of_about_the_same_size_and_both_policies_have_the_same():
    table = rows("backbones")
    encoder = EncoderConfig().build(SCHEMA.observations, SPEC.obs_steps)
    seen = encoder({f.name: torch.zeros(1, SPEC.obs_steps, *f.shape) for f in SCHEMA.observations})
    for name, config in backbones.NETS.items():
        net = config.build(horizon=16, action_dim=2, condition_dim=encoder.dim, token_dim=encoder.token_dim)
        call = multiply_adds(lambda net=net: net(torch.zeros(1, 16, 2), torch.ones(()), seen))
        sizes = [(r["parameters"], r["multiply-adds a call"]) for r in table if r["network"] == name]
        assert sizes == [(parameters(net) + parameters(encoder), call)] * 2
    counts = [int(str(r["parameters"])) for r in table]
    assert max(counts) < 2 * min(counts)
