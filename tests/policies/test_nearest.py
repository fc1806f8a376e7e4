"""Nearest neighbour against brute force: each training window comes back as it was, anything else as its nearest."""

import pytest
import torch

from noise2action.data.episodes import ACTION
from noise2action.errors import ConfigError, SchemaError
from noise2action.evaluate.setting import AS_DRAWN, setting_for
from noise2action.policies import NearestConfig, backbone_of
from noise2action.policies.checkpoint import build, load
from noise2action.schema import Feature, Schema
from noise2action.train.folder import read_metrics
from noise2action.train.loop import fit
from small_policies import SCHEMA, SPEC, history, job

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made, run = job(NearestConfig(spec=SPEC)), tmp_path_factory.mktemp("nearest")
    assert fit(made, run)
    return made, run, build(load(run))


def windows(made):
    return made.training.gather(torch.arange(len(made.training.windows)))


def seen(made):
    """Return the training observations in robot units."""
    return {name: made.normalizer.decode(name, x) for name, x in windows(made).observations.items()}


def test_a_training_window_returns_its_own_chunk(trained):
    made, _, policy = trained
    close(policy.plan(seen(made)), made.normalizer.decode(ACTION, windows(made).actions))


def test_the_nearest_is_that_of_an_exhaustive_search(trained):
    made, _, policy = trained
    asked = history(64)
    rows = []
    stored = windows(made)
    for k in range(64):
        best, row = float("inf"), -1
        for w in range(len(stored)):
            distance = 0.0
            for name, x in stored.observations.items():
                a, b = made.normalizer.encode(name, asked[name][k]), x[w]
                if name == "heading":
                    distance += float(((a.cos() - b.cos()) ** 2 + (a.sin() - b.sin()) ** 2).sum())
                else:
                    distance += float(((a - b) ** 2).sum())
            if distance < best:
                best, row = distance, w
        rows.append(row)
    close(policy.plan(asked), made.normalizer.decode(ACTION, stored.actions[rows]))


def test_a_turn_by_a_whole_circle_is_no_distance(trained):
    made, _, policy = trained
    turned = {name: x + (2 * torch.pi if name == "heading" else 0) for name, x in seen(made).items()}
    close(policy.plan(turned), policy.plan(seen(made)))


def test_it_trains_in_no_steps_and_is_read_back_whole(trained):
    made, run, policy = trained
    found = load(run)
    assert found.step == 0
    assert found.deployed.policy == NearestConfig(SPEC, windows=len(made.training.windows))
    assert [r["kind"] for r in read_metrics(run)] == ["validation"]
    assert fit(made, run, resume=True)
    assert load(run).state == found.state
    assert float(policy.loss(windows(made), generator=torch.Generator()).value.max()) == 0


def test_pictures_and_words_are_refused(trained):
    picture = Schema((*SCHEMA.observations, Feature("camera", (8, 8, 3), kind="image", dtype="uint8")), SCHEMA.action)
    with pytest.raises(ConfigError, match=r"observed in states .* got \['camera'\]"):
        NearestConfig(spec=SPEC).build(picture, trained[0].normalizer)


def test_what_asks_for_a_network_says_that_there_is_none(trained):
    policy = trained[2]
    with pytest.raises(ConfigError, match="expected a policy with a network"):
        backbone_of(policy)
    assert setting_for(policy) is AS_DRAWN
    with pytest.raises(SchemaError, match="heading"):
        policy.plan({"position": history(1)["position"]})
