"""A policy that cannot be built is told before anything is demonstrated or written."""

import importlib.util
import re
from dataclasses import replace

import pytest
import torch

from noise2action.cli import main
from noise2action.commands import overrides
from noise2action.commands.train import _changed, _check_start
from noise2action.data.actions import Relative
from noise2action.errors import ConfigError
from noise2action.policies.checkpoint import load
from noise2action.recipes import find, prepare
from noise2action.recipes.prepare import begun
from noise2action.recipes.runs import open_policy

SENTENCES = pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="is installed")


@pytest.mark.parametrize(
    ("recipe", "flags", "said"),
    [
        ("pusht_image", ["--policy.encoder.vision", "vit"], "expected images that divide by the patch of 16 px"),
        (
            "pusht_image",
            [
                *("--policy.encoder.crop", "crop_size"),
                *("--policy.encoder.crop.height", "97", "--policy.encoder.crop.width", "84"),
            ],
            "expected a crop inside 96 x 96, got 97 x 84",
        ),
        (
            "two_routes_text",
            ["--policy.encoder.text", "null"],
            "expected an encoder for the text .* known: hashed_ngrams, sentence_model",
        ),
        ("two_routes", ["--policy.encoder.token-dim", "8"], "expected a network that attends to tokens"),
        (
            "two_routes",
            ["--policy.net.width", "65536", "--policy.net.expansion", "65536"],
            r"expected a policy whose training fits in [\d.]+ GB",
        ),
        (
            "two_routes_goal",
            [
                *("--policy.net", "unet1d", "--policy.net.conditioning", "cross_attention"),
                *("--policy.encoder.token-dim", "64", "--policy.encoder.image-tokens", "cells"),
                *("--train.batch-size", "10000000"),
            ],
            r"fits in [\d.]+ GB, got 10000000 windows x 4 draws that keep [\d.,e+]+ GB .*: lower train.batch_size",
        ),
        (
            "pusht_image",
            [
                *("--policy.encoder.vision.norm", "batch", "--policy.encoder.vision.stem", "standard"),
                *("--policy.encoder.vision.weights", "nowhere.safetensors"),
            ],
            "expected a safetensors file of ImageNet weights, got nowhere.safetensors",
        ),
        (
            "pusht_image",
            [
                *("--policy.encoder.vision.norm", "batch", "--policy.encoder.vision.stem", "standard"),
                *("--policy.encoder.vision.weights", "."),
            ],
            "expected a safetensors file of ImageNet weights, got a folder",
        ),
        ("two_routes", ["--policy.spec.control-hz", "5"], "control_hz=10 of two_routes, got 5: change it"),
        ("two_routes", ["--data", "nowhere.npz"], "nowhere.npz"),
        ("two_routes", ["--init", "pyproject.toml"], "expected a run folder, got a file: pyproject.toml"),
        pytest.param(
            "two_routes_text",
            ["--policy.encoder.text", "sentence_model"],
            "sentence-transformers is not installed",
            marks=SENTENCES,
        ),
    ],
)
def test_a_policy_that_cannot_be_built_is_told_first(recipe, flags, said, tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("demonstrated")

    monkeypatch.setattr(prepare, "demonstrate", never)
    out = tmp_path / "run"
    assert main(["train", recipe, "--out", str(out), *flags]) == 2
    found = capsys.readouterr().err
    assert re.search(said, found)
    assert not out.exists()


SMALL = ["--data.demonstrations", "4", "--data.held-out", "0.3", "--train.steps", "1", "--train.batch-size", "8"]
NETS = {
    "transformer": ["--policy.net", "transformer", "--policy.net.layers", "1"],
    "mlp": ["--policy.net", "mlp", "--policy.net.blocks", "1"],
}


@pytest.mark.parametrize("net", NETS)
def test_one_set_of_weights_goes_on_with_chunks_of_another_length_where_its_network_can(net, tmp_path, capsys):
    first, out = tmp_path / "first", tmp_path / "second"
    assert main(["train", "two_routes", "--out", str(first), *SMALL, "--policy.net.width", "16", *NETS[net]]) == 0
    longer = ["--policy.spec.horizon", "24", "--train.learning-rate", "1e-12"]
    code = main(["train", "two_routes", "--init", str(first), "--out", str(out), *SMALL, *longer])
    if net == "mlp":
        assert code == 2
        assert "policy.spec.horizon: expected 16, got 24: the weights are for chunks of" in capsys.readouterr().err
        assert not out.exists()
        return
    policy, checkpoint = open_policy(out)
    assert policy.plan(policy.backbone.encoder.example(), generator=torch.Generator()).shape == (1, 24, 2)
    for name, value in load(first).tensors["ema"].items():
        torch.testing.assert_close(checkpoint.tensors["ema"][name], value, rtol=0, atol=1e-9)
    # Relative actions of longer chunks leave the range that they were normalised by.
    start, spec = load(first), checkpoint.deployed.policy.spec
    deployed = replace(start.deployed.policy, spec=replace(spec, horizon=16, action_space=Relative("position")))
    start = replace(start, deployed=replace(start.deployed, policy=deployed))
    longer = begun(find("two_routes"), start)
    longer = replace(longer, policy=replace(deployed, spec=replace(deployed.spec, horizon=24)))
    with pytest.raises(ConfigError, match=r"--init: policy.spec.horizon: expected 16, got 24: policy and normaliser"):
        _check_start(longer, start)


def test_another_task_or_kind_is_told_before_what_follows_from_it():
    old = find("two_routes")
    assert _changed(old, find("pusht_state")) == "task: expected two_routes, got pusht"
    policy = overrides.apply(old, overrides.parse(["--policy", "regression"]), where="--")
    assert _changed(old, policy) == "policy: expected diffusion, got regression"
    seed = overrides.apply(old, overrides.parse(["--seed", "7"]), where="--")
    assert _changed(old, seed) == "seed: expected 0, got 7"
    assert _changed(old, old) is None


def flagged(recipe, *words):
    return overrides.apply(find(recipe), overrides.parse(words), where="--").policy


def test_a_flag_of_a_list_takes_one_word_or_several():
    drop = ("--policy.encoder.modality-dropout", "0.1", "--policy.encoder.droppable")
    assert flagged("two_routes", *drop, "state").encoder.droppable == ("state",)
    assert flagged("two_routes", *drop, "state", "instruction").encoder.droppable == ("state", "instruction")
    assert flagged("two_routes", *drop, '["state"]').encoder.droppable == ("state",)
    assert flagged("two_routes", "--policy.net", "fusion_mlp", "--policy.net.widths", "64").net.widths == (64,)
    with pytest.raises(ConfigError, match="mean: expected 3 values, got 1"):
        flagged("two_routes", "--policy.encoder.mean", "0.5")


def test_a_list_in_a_file_is_a_list():
    with pytest.raises(ConfigError, match="droppable: expected a list, got str 'state'"):
        overrides.apply(find("two_routes"), {"policy": {"encoder": {"droppable": "state"}}}, where="c.json")


def test_a_flag_of_a_list_is_given_once():
    widths = ("--policy.net", "fusion_mlp", "--policy.net.widths", "64", "--policy.net.widths")
    with pytest.raises(ConfigError, match=r"--policy.net.widths: expected it once, with all its values behind it"):
        flagged("two_routes", *widths, "32")
    assert overrides.parse(["--seed", "1", "--seed", "2"]) == {"seed": 2}
