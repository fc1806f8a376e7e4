"""An imported LeRobot policy acts as the policy of that layout, written out, does: for the same noise."""

import itertools
import json
import math

import pytest
import torch
from lerobot_written import Policy, observed, options, seen, statistics

from noise2action.data.normalize import Normalizer
from noise2action.errors import CheckpointError
from noise2action.nets.embed import ShiftedSinusoidal
from noise2action.policies.checkpoint import build
from noise2action.policies.foreign import lerobot
from noise2action.policies.foreign.layout import checkpoint_of, own_names
from noise2action.policies.foreign.statistics import affine

close = torch.testing.assert_close
# Their schedules and grids may leave signal where sampling starts: that is told, and imported as it is.
pytestmark = pytest.mark.filterwarnings("ignore::noise2action.diffusion.paths.TerminalSNRWarning")

STATES = {
    "as it is": {},
    "no FiLM scale": {"use_film_scale_modulation": False},
    "three levels": {"down_dims": [16, 24, 32], "n_groups": 8, "kernel_size": 3, "horizon": 16},
    "sample": {"prediction_type": "sample"},
    "linear": {"beta_schedule": "linear", "beta_end": 0.3},
    "scaled linear": {"beta_schedule": "scaled_linear", "beta_end": 0.3},
    "DDIM": {"noise_scheduler_type": "DDIM"},
    "DDIM, few steps": {"noise_scheduler_type": "DDIM", "num_inference_steps": 6},
    "DDPM, few steps": {"num_inference_steps": 6},
    "another bound": {"clip_sample_range": 0.5, "noise_scheduler_type": "DDIM"},
    "one observation": {"n_obs_steps": 1},
    "three observations": {"n_obs_steps": 3, "n_action_steps": 6},
    "mean and deviation": {"normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"}},
    "quantiles": {"normalization_mapping": {"ENV": "QUANTILES", "STATE": "QUANTILES", "ACTION": "QUANTILES"}},
    "no normaliser": {"normalization_mapping": {"ENV": "MIN_MAX", "STATE": "MIN_MAX", "ACTION": "IDENTITY"}},
}
CAMERAS = {
    "one, batch norm, images in a range": (
        {
            "input_features": seen(),
            "use_group_norm": False,
            "normalization_mapping": {"VISUAL": "MIN_MAX", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"},
        },
        False,
    ),
    "two as they are, shared, crop, no FiLM scale": (
        {
            "input_features": seen(cameras=2, size=(51, 43)),
            "crop_shape": [40, 32],
            "use_film_scale_modulation": False,
            "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"},
        },
        True,
    ),
    "two, separate, environment named before them": (
        {"input_features": seen(cameras=2, environment=True), "use_separate_rgb_encoder_per_camera": True},
        False,
    ),
    "one, ResNet-34, images by quantiles": (
        {
            "input_features": seen(size=(32, 32)),
            "vision_backbone": "resnet34",
            "normalization_mapping": {"VISUAL": "QUANTILES", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
        },
        False,
    ),
}
CROSSED = {
    "use_film_scale_modulation": {True: "FiLM scale", False: "FiLM bias"},
    "use_separate_rgb_encoder_per_camera": {True: "separate", False: "shared"},
    "use_group_norm": {True: "group norm", False: "batch norm"},
    "old": {True: "old normaliser", False: "new normaliser"},
}
"""Options of which every combination is tried, with the words for them."""
OLD = ("as it is", "three levels", "mean and deviation", "no normaliser")
"""States whose statistics are tried in the weights too."""


def imported(folder):
    foreign = lerobot.read(folder)
    return checkpoint_of(foreign, own_names(foreign), task="lerobot", control_hz=10.0)


def agree(policy, folder):
    ours = build(imported(folder))
    history = observed(policy)
    executed, chunk = policy.act(history, torch.Generator().manual_seed(3))
    planned = ours.plan(history, generator=torch.Generator().manual_seed(3))
    first = -ours.spec.first_action
    scale = policy.statistics["action"]["std"].max() if policy.mode("action") != "IDENTITY" else 1.0
    close(planned / scale, chunk / scale, rtol=1e-5, atol=1e-5)
    assert chunk.std() > 1e-2 * scale  # a constant would agree with anything
    close(planned[:, first : first + ours.spec.stride], executed, rtol=1e-5, atol=1e-5 * float(scale))


@pytest.mark.parametrize(("name", "old"), [*((name, False) for name in STATES), *((name, True) for name in OLD)])
def test_states_give_the_same_actions(name, old, tmp_path) -> None:
    body = options(**STATES[name])
    policy = Policy(body, statistics(body), old=old)
    agree(policy, policy.save(tmp_path / "theirs", compiled=old))


@pytest.mark.parametrize(("changed", "old"), CAMERAS.values(), ids=CAMERAS)
def test_cameras_give_the_same_actions(changed, old, tmp_path) -> None:
    body = options(num_train_timesteps=4, **changed)
    policy = Policy(body, statistics(body), old=old)
    agree(policy, policy.save(tmp_path / "theirs"))


@pytest.mark.parametrize(
    "chosen",
    list(itertools.product((True, False), repeat=len(CROSSED))),
    ids=lambda chosen: ", ".join(words[on] for words, on in zip(CROSSED.values(), chosen, strict=True)),
)
def test_every_combination_of_options_gives_the_same_actions(chosen, tmp_path) -> None:
    *flags, old = chosen
    body = options(
        num_train_timesteps=2, n_obs_steps=1, n_action_steps=4, input_features=seen(cameras=2, size=(32, 32))
    )
    body |= dict(zip(CROSSED, flags, strict=False))
    policy = Policy(body, statistics(body), old=old)
    agree(policy, policy.save(tmp_path / "theirs"))


@pytest.mark.parametrize(
    ("crop", "random", "told"), [([32, 24], False, True), ([32, 24], True, False), (None, False, False)]
)
def test_a_training_on_crops_of_the_centre_is_told(crop, random, told, tmp_path) -> None:
    """The actions are the same: only what is trained further would be trained otherwise."""
    body = options(num_train_timesteps=2, input_features=seen(), crop_shape=crop, crop_is_random=random)
    policy = Policy(body, statistics(body))
    folder = policy.save(tmp_path / "theirs")
    assert ("crops" in lerobot.read(folder).about) == told
    if told:
        agree(policy, folder)


def test_the_whole_resnet_gives_the_same_actions(monkeypatch, tmp_path) -> None:
    monkeypatch.undo()  # of conftest.py
    body = options(num_train_timesteps=2, input_features=seen(size=(32, 32)))
    policy = Policy(body, statistics(body))
    assert policy.model.rgb_encoder.pool.nets.weight.shape[1] == 512
    agree(policy, policy.save(tmp_path / "theirs"))


def test_a_constant_maps_to_minus_one_wherever_it_lies() -> None:
    """As theirs does, 2 (x - min) / eps - 1 at x = min: in float32, far from zero too; and back to the constant."""
    for value in (0.0, 1e-3, 0.1, 256.3, -7e4):
        constant = torch.tensor([value])
        found = affine("MIN_MAX", {"min": constant, "max": constant}, size=1, where="x")
        normalizer = Normalizer({"x": found})
        assert normalizer.encode("x", constant).item() == pytest.approx(-1, abs=1e-6)
        for y in (-1.0, 0.3, 1.0):
            assert normalizer.decode("x", torch.tensor([y])).item() == pytest.approx(
                constant.item(), rel=2e-6, abs=2e-8
            )


def test_the_network_counts_steps_from_zero_exactly() -> None:
    """Its sinusoids are those of the integers, however k / T is rounded."""
    steps = 1000
    embedding = ShiftedSinusoidal(16, scale=float(steps), offset=-1.0)
    k = torch.arange(1, steps + 1)
    frequencies = torch.exp(torch.arange(8) * -(math.log(10000) / 7))
    angle = (k - 1)[:, None] * frequencies
    assert embedding((k.double() / steps).float()).equal(torch.cat([angle.sin(), angle.cos()], dim=1))


def test_the_kind_of_a_map_is_read_where_its_numbers_lie(tmp_path) -> None:
    body = options(num_train_timesteps=4)
    for old in (False, True):
        folder = Policy(body, statistics(body), old=old).save(tmp_path / f"old{old}")
        kinds = [lerobot.read(folder).action.affine.kind]
        config = json.loads((folder / "config.json").read_text())
        config["normalization_mapping"]["ACTION"] = "MEAN_STD"
        (folder / "config.json").write_text(json.dumps(config))
        if old:
            with pytest.raises(CheckpointError, match="expected the statistic 'mean'"):
                lerobot.read(folder)
            assert kinds == ["limits"]
            continue
        found = lerobot.read(folder)
        assert [*kinds, found.action.affine.kind] == ["limits", "limits"]
        assert found.about["normaliser"] == "norm_map of policy_preprocessor.json"
