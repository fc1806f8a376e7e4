"""The studies of how a policy is told: every claim is recomputed from the table, and the tools keep their laws."""

import re
from dataclasses import replace

import numpy as np
import pytest
from control_claims import at, clauses, clocked, findings, rows, told, verdict

from noise2action.data.episodes import Episodes
from noise2action.envs.two_routes_text import INSTRUCTION, ROUTES, SCHEMA
from noise2action.evaluate.rollouts import EpisodeResult, Trace
from noise2action.studies import conditioning, guidance_control
from noise2action.studies.guidance_control import BOTH, FOLLOWED, OUTSIDE, REACHED, WEIGHTS, measured, sharpened


def test_claims_on_guidance_follow_from_the_rows():
    table, text = rows("guidance-control"), findings("guidance-control").paragraph
    assert [(r["actions"], r["w"]) for r in table] == [(c, w) for c in guidance_control.CLIPS for w in WEIGHTS]
    for measure in guidance_control.MEASURES:
        found = clauses(text, measure)
        for k, clip in enumerate(guidance_control.CLIPS):
            for row in table:
                if row["actions"] == clip and row["w"] != 0:
                    gap = at(row, f"{measure}, less that of w = 0")
                    said = f"w = {row['w']:g} {told(gap, guidance_control.DIGITS[measure])}"
                    assert said in found[k][verdict(gap)]
    clipped = [r for r in table if r["actions"] == "clipped"]
    first = at(clipped[0], FOLLOWED)
    assert (
        f"Without guidance it takes the told route in {first.value:.1f} % [{first.low:.1f}, {first.high:.1f}]" in text
    )
    held = [r for r in clipped if at(r, FOLLOWED).low <= r["told route by sharpened odds (%)"] <= at(r, FOLLOWED).high]
    assert f"holds it at {len(held)} of {len(WEIGHTS)} weights" in text
    best = max(clipped, key=lambda r: at(r, FOLLOWED).value)
    if at(best, FOLLOWED).value < 98:
        assert f"the most is {at(best, FOLLOWED).value:.1f} % at w = {best['w']:g}" in text
    for row in table:
        sides = [at(row, f'told route taken, "{s}" (%)').value for s in guidance_control.TOLD]
        assert at(row, FOLLOWED).value == pytest.approx(np.mean(sides))


@pytest.mark.slow
def test_claims_on_conditioning_follow_from_the_rows():
    table, text = rows("conditioning"), findings("conditioning").paragraph
    assert {(r["network"], r["conditioning"]) for r in table} == {
        (name, way) for name, (_, ways) in conditioning.WAYS.items() for way in ways
    }
    for measure in conditioning.MEASURES:
        found = clauses(text, measure)
        for k, name in enumerate(conditioning.WAYS):
            for row in table:
                if row["network"] == name and row["conditioning"] != "concat":
                    gap = at(row, f"{measure}, less that of concat")
                    said = f"{row['conditioning']} {told(gap, conditioning.DIGITS[measure])}"
                    assert said in found[k][verdict(gap)]
    for row in table:
        plan = f"{clocked(row, conditioning.P50)} ms."
        assert f"{row['network']} by {row['conditioning']} {row['parameters']:,} and {plan}" in text
    best = max(table, key=lambda r: at(r, "success (%), Wilson over all episodes").value)
    assert text.startswith(f"{best['network']} by {best['conditioning']} succeeds most often")


def test_every_backbone_is_told_in_all_the_ways_that_it_offers():
    offered = {way for _, ways in conditioning.WAYS.values() for way in ways}
    assert offered == {"concat", "film", "adaln", "cross_attention"}
    for net, ways in conditioning.WAYS.values():
        for way in ways:
            made = conditioning.policy(net, way)
            assert made.net == replace(net, conditioning=way)
            assert (made.encoder.token_dim is None) == (way in ("film", "adaln") or not _attends(made.net))


def _attends(net):
    return net.conditioning == "cross_attention" or type(net).__name__ == "TransformerConfig"


def test_sharpened_odds_are_the_normalised_product_of_densities():
    for w in (0.0, 1.0, 4.0):
        density = np.array([0.8, 0.2]) ** (1 + w) / np.array([0.5, 0.5]) ** w
        assert sharpened(w, wrong=0.2) == pytest.approx(density[0] / density.sum())
    assert sharpened(0.0) == pytest.approx(1 - guidance_control.WRONG)


def test_only_told_sides_are_mislabelled_and_whole_episodes():
    count, length = 600, 3
    said = np.repeat(np.arange(count) % 3, length)[:, None].astype(np.int64)
    zeros = np.zeros((count * length, 2), np.float32)
    arrays = {"position": zeros, "velocity": zeros, "instruction": said, "action": zeros}
    episodes = Episodes(arrays, np.arange(1, count + 1) * length, SCHEMA)
    changed = guidance_control.mislabelled(episodes, 0.2, seed=0).arrays["instruction"].reshape(count, length)
    before = said.reshape(count, length)
    assert (changed == changed[:, :1]).all()
    either = INSTRUCTION.sentences.index("either way")
    assert (changed[before == either] == either).all()
    sides = before[:, 0] != either
    assert (changed[sides] != either).all()
    share = (changed[sides, 0] != before[sides, 0]).mean()
    assert abs(share - 0.2) < 3 * np.sqrt(0.2 * 0.8 / 400)


def episode(seed, route, *, speed, success=True, end=(0.0, 0.85)):
    actions = np.full((4, 2), speed / 2**0.5, np.float32)
    position = np.array([(0.0, 0.15)] * 4 + [end], np.float32)
    trace = Trace(actions, np.ones(4, np.bool_), {"position": position}, None)
    return EpisodeResult(seed, success, float(success), 4, route, None, None, None, None, trace)


def test_measures_of_a_guided_policy_written_out():
    speeds = np.linspace(0.2, 0.4, 2001)
    said = {
        "go left": [episode(0, "left", speed=0.3), episode(1, "right", speed=0.3, success=False)],
        "go right": [episode(0, "right", speed=0.5), episode(1, "none", speed=0.3, success=False, end=(0.0, 0.5))],
        "either way": [episode(0, "left", speed=0.1), episode(1, "right", speed=0.3)],
    }
    assert set(said) == set(ROUTES)
    found = measured(said, speeds)
    assert found[FOLLOWED] == 50
    assert found[BOTH] == pytest.approx(1.0)
    # The wrong side is the goal as well, the post is not.
    assert found[REACHED] == pytest.approx(100 * 5 / 6)
    # Half of a per cent of the speeds lie beyond each end of the range: 0.201 to 0.399.
    assert found[OUTSIDE] == pytest.approx(100 * (0.101 + 0.101) / 6, rel=1e-3)
    assert re.search(r"cm/s", OUTSIDE)
