"""Exporting: import after it is the identity, and what LeRobot cannot express is one error."""

import json
import re
from dataclasses import replace

import pytest
import torch
from lerobot_written import Policy, observed, options, seen, statistics
from safetensors.torch import load_file
from test_lerobot_import import imported

from noise2action.data.actions import Delta
from noise2action.data.normalize import Normalizer
from noise2action.diffusion.grids import Leading
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Schedule, Table
from noise2action.diffusion.samplers import DDIM, Scheduler
from noise2action.diffusion.targets import Epsilon, V
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.pooling import SpatialSoftmaxConfig
from noise2action.encoders.vit import ViTConfig
from noise2action.errors import ConfigError, DataError
from noise2action.nets.mlp import MLPConfig
from noise2action.nets.unet1d import UNet1dConfig
from noise2action.policies import DiffusionConfig, PolicySpec, Sampling
from noise2action.policies.checkpoint import build
from noise2action.policies.foreign.lerobot import BACKBONES
from noise2action.policies.foreign.lerobot_export import write
from noise2action.policies.foreign.noise import in_words
from noise2action.schema import Feature, Schema

close = torch.testing.assert_close

BODIES = {
    "states": {},
    "mean and deviation": {"normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "QUANTILES", "ENV": "MIN_MAX"}},
    "linear, DDIM": {
        "beta_schedule": "linear",
        "beta_end": 0.99,
        "noise_scheduler_type": "DDIM",
        "clip_sample": False,
        "prediction_type": "sample",
    },
    "cameras": {
        "input_features": seen(cameras=2, environment=True),
        "use_group_norm": False,
        "crop_shape": [40, 32],
    },
}


@pytest.mark.parametrize("changed", BODIES.values(), ids=BODIES)
def test_import_after_export_is_the_identity(changed, tmp_path) -> None:
    body = options(num_train_timesteps=8, **changed)
    theirs = Policy(body, statistics(body)).save(tmp_path / "theirs")
    first = imported(theirs)
    write(build(first), tmp_path / "back")
    second = imported(tmp_path / "back")
    assert second.deployed == first.deployed
    for part in ("ema", "normalizer"):
        assert first.tensors[part].keys() == second.tensors[part].keys()
        for key, value in first.tensors[part].items():
            assert value.equal(second.tensors[part][key]), key
    back, original = (load_file(folder / "model.safetensors") for folder in (tmp_path / "back", theirs))
    assert back.keys() == original.keys()
    assert all(value.equal(original[key]) for key, value in back.items())
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    free = {"num_inference_steps", "do_mask_loss_for_padding", "beta_start", "beta_end", "normalization_mapping"}
    if "observation.image" not in str(body["input_features"]):  # options of cameras that are not there
        free |= {"use_separate_rgb_encoder_per_camera", "spatial_softmax_num_keypoints"}
    assert {key: written[key] for key in written if key not in free} == {
        key: body[key] for key in written if key not in free
    }
    assert written["normalization_mapping"].items() <= {**body["normalization_mapping"], "ENV": "MIN_MAX"}.items()
    with pytest.raises(DataError, match="exists"):
        write(build(first), tmp_path / "back")


SCHEMA = Schema(
    (
        Feature("image", (40, 48, 3), kind="image", dtype="uint8"),
        Feature("agent_position", (2,), unit="px"),
        Feature("gripper", (1,)),
    ),
    Feature("action", (2,), unit="px"),
)
NET = UNet1dConfig(widths=(16, 32), groups=8, time_dim=16, time_scale=20.0)


def config(**changed):
    vision = replace(BACKBONES["resnet18"](), pool=SpatialSoftmaxConfig(keypoints=4), dim=8)
    whole = DiffusionConfig(
        spec=PolicySpec(obs_steps=2, horizon=8, stride=4, first_action=-1),
        net=NET,
        encoder=EncoderConfig(vision=vision, cameras="shared", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
        objective=Diffusion(path=Schedule(steps=20, name="cosine"), target=Epsilon()),
        sampling=Sampling(sampler=Scheduler("ddim"), grid=Leading(20), nfe=20),
    )
    return replace(whole, **changed)


def fitted(schema):
    g = torch.Generator().manual_seed(0)
    arrays = {n: (100 * torch.rand(50, *schema.features[n].shape, generator=g)).numpy() for n in schema.normalised}
    return Normalizer.fit(arrays, dict.fromkeys(arrays, "limits"))


def own(whole, schema=SCHEMA):
    torch.manual_seed(0)
    return whole.build(schema, fitted(schema)).eval()


def test_an_own_policy_acts_the_same_after_export_and_import(tmp_path) -> None:
    """Its steps are counted from 1 and its camera comes first: both are turned round in the weights."""
    policy = own(config())
    for p in policy.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    write(policy, tmp_path / "out")
    back = build(imported(tmp_path / "out"))
    g = torch.Generator().manual_seed(1)
    history = {
        "image": torch.randint(256, (2, 2, 40, 48, 3), dtype=torch.uint8, generator=g),
        "agent_position": 100 * torch.rand(2, 2, 2, generator=g),
        "gripper": 100 * torch.rand(2, 2, 1, generator=g),
    }
    theirs = {
        "observation.images.image": history["image"].movedim(4, 2),
        "observation.state": torch.cat([history["agent_position"], history["gripper"]], dim=2),
    }
    a, b = (p.plan(h, generator=torch.Generator().manual_seed(2)) for p, h in ((policy, history), (back, theirs)))
    close(a / 100, b / 100, rtol=1e-5, atol=1e-5)
    assert a.std() > 1


STATES = Schema(SCHEMA.observations[1:], SCHEMA.action)
CANNOT = {
    "net": (lambda: own(config(net=MLPConfig(), encoder=EncoderConfig()), STATES), "policy.net: expected unet1d"),
    "conditioning": (lambda: own(config(net=replace(NET, conditioning="concat")), STATES), "film"),
    "target": (lambda: own(config(objective=Diffusion(path=Schedule(steps=20), target=V())), STATES), "target"),
    "path": (
        lambda: own(config(objective=Diffusion(target=Epsilon(), span=(0.0, 0.9)), sampling=Sampling()), STATES),
        "policy.objective.path",
    ),
    "schedule": (
        lambda: own(config(objective=Diffusion(path=Schedule(steps=20, name="sigmoid"), target=Epsilon())), STATES),
        "betas",
    ),
    "sampler": (lambda: own(config(sampling=Sampling(sampler=DDIM())), STATES), "policy.sampling"),
    "first action": (lambda: own(config(spec=PolicySpec(obs_steps=2, horizon=8, stride=4)), STATES), "first_action"),
    "horizon": (
        lambda: own(config(spec=PolicySpec(obs_steps=2, horizon=10, stride=4, first_action=-1)), STATES),
        "horizon",
    ),
    "clock": (lambda: own(config(net=replace(NET, time_scale=100.0)), STATES), "time_scale"),
    "action space": (
        lambda: own(
            config(
                spec=PolicySpec(obs_steps=2, horizon=8, stride=4, first_action=-1, action_space=Delta("agent_position"))
            ),
            STATES,
        ),
        "action_space",
    ),
    "vision": (lambda: own(config(encoder=EncoderConfig())), "vision"),
    "one state": (
        lambda: own(config(encoder=EncoderConfig()), Schema(SCHEMA.observations[1:2], SCHEMA.action)),
        "a camera or a second state",
    ),
    "angle": (
        lambda: own(
            config(encoder=EncoderConfig()),
            Schema((Feature("a", (1,), kind="angle"), *SCHEMA.observations[1:]), SCHEMA.action),
        ),
        "an angle",
    ),
    "goal": (
        lambda: own(
            config(encoder=EncoderConfig()),
            Schema((Feature("g", (2,), goal=True), *SCHEMA.observations[1:]), SCHEMA.action),
        ),
        "a goal vector",
    ),
    "dropout": (lambda: own(config(encoder=EncoderConfig(modality_dropout=0.1)), STATES), "modality_dropout"),
    "proprioception": (lambda: own(config(encoder=EncoderConfig(proprioception=(8,))), STATES), "proprioception"),
}


@pytest.mark.filterwarnings("ignore::noise2action.diffusion.paths.TerminalSNRWarning")
@pytest.mark.parametrize(("make", "message"), CANNOT.values(), ids=CANNOT)
def test_what_lerobot_cannot_express_is_one_error(make, message, tmp_path) -> None:
    with pytest.raises(ConfigError, match="to export to LeRobot") as caught:
        write(make(), tmp_path / "out")
    assert message in str(caught.value)
    # In words: no class and no field that nobody typed.
    assert not re.search(r"Config|[A-Z]\w+\(", str(caught.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (ViTConfig(), "vit"),
        (Delta("agent_position"), "delta(reference=agent_position)"),
        (EncoderConfig(proprioception=(8,), modality_dropout=0.1), "encoder(proprioception=(8), modality_dropout=0.1)"),
        (Sampling(guidance=2.0, clip=None), "sampling(clip=none, guidance=2)"),
        (Table(betas=tuple([0.1] * 100)), "table(betas=100 values)"),
        ([(96, 96), (48, 48)], "(96, 96), (48, 48)"),
        ((), "none"),
        (None, "none"),
    ],
)
@pytest.mark.filterwarnings("ignore::noise2action.diffusion.paths.TerminalSNRWarning")
def test_values_are_told_by_name_with_what_is_not_usual(value, said) -> None:
    assert in_words(value) == said


def test_what_is_written_acts_as_the_layout_written_out(tmp_path) -> None:
    """The folder, loaded into the independent network: keys, shapes and numbers are LeRobot's."""
    policy = own(config(encoder=EncoderConfig()), STATES)
    for p in policy.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    write(policy, tmp_path / "out")
    body = json.loads((tmp_path / "out" / "config.json").read_text())
    flat = load_file(tmp_path / "out" / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    numbers = {}
    for key, value in flat.items():
        name, _, statistic = key.rpartition(".")
        numbers.setdefault(name, {})[statistic] = value
    theirs = Policy(body, numbers)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    theirs.model.load_state_dict({key.removeprefix("diffusion."): value for key, value in weights.items()})
    history = observed(theirs)
    _, chunk = theirs.act(history, torch.Generator().manual_seed(5))
    named = {
        "agent_position": history["observation.state"],
        "gripper": history["observation.environment_state"],
    }
    close(policy.plan(named, generator=torch.Generator().manual_seed(5)) / 100, chunk / 100, rtol=1e-5, atol=1e-5)
