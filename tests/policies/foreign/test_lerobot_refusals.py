"""What is missing, unexpected or not supported in a LeRobot folder is one error that names it."""

import json

import pytest
import torch
from lerobot_written import Policy, options, statistics
from safetensors.torch import load_file, save_file
from test_lerobot_import import imported

from noise2action.errors import CheckpointError, Noise2ActionError


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    body = options(num_train_timesteps=4)
    return Policy(body, statistics(body)).save(tmp_path_factory.mktemp("kept") / "theirs")


@pytest.fixture
def folder(kept, tmp_path):
    for file in kept.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edited(path, change):
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


USED = (
    "n_obs_steps horizon n_action_steps input_features output_features normalization_mapping vision_backbone "
    "crop_shape use_group_norm spatial_softmax_num_keypoints use_separate_rgb_encoder_per_camera down_dims kernel_size "
    "n_groups diffusion_step_embed_dim use_film_scale_modulation noise_scheduler_type num_train_timesteps "
    "beta_schedule beta_start beta_end prediction_type clip_sample clip_sample_range num_inference_steps type"
)


@pytest.mark.parametrize("name", USED.split())
def test_no_option_has_a_default(name, folder) -> None:
    edited(folder / "config.json", lambda body: body.pop(name))
    with pytest.raises(CheckpointError, match=f"expected a field '{name}'"):
        imported(folder)


def feature(name, kind, shape):
    return lambda body: body["input_features"].update({name: {"type": kind, "shape": shape}})


CONFIGS = {
    "type": (lambda b: b.update(type="act"), "expected a supported 'type', got 'act'"),
    "backbone": (lambda b: b.update(vision_backbone="resnet50"), "'vision_backbone', got 'resnet50'"),
    "scheduler": (lambda b: b.update(noise_scheduler_type="DPM"), "'noise_scheduler_type', got 'DPM'"),
    "schedule": (lambda b: b.update(beta_schedule="sigmoid"), "'beta_schedule', got 'sigmoid'"),
    "prediction": (lambda b: b.update(prediction_type="v_prediction"), "'prediction_type', got 'v_prediction'"),
    "resize": (lambda b: b.update(resize_shape=[48, 48]), "'resize_shape' to be null"),
    "crop": (lambda b: b.update(crop_shape=[84]), "crop_shape"),
    "unknown": (lambda b: b.update(language="yes", hidden=None), "known here, got language"),
    "flag": (lambda b: b.update(clip_sample=1), "'clip_sample' to be true or false, got 1"),
    "number": (lambda b: b.update(horizon="16"), "'horizon' to be an integer"),
    "widths": (lambda b: b.update(down_dims=16), "'down_dims' to be a list of integers"),
    "huge widths": (lambda b: b.update(down_dims=[10**9]), "config.json: down_dims, .*up to 65536, got .*1000000000"),
    "more calls than steps": (lambda b: b.update(num_inference_steps=5), "num_inference_steps"),
    "steps": (lambda b: b.update(num_train_timesteps=10**9), "num_train_timesteps"),
    "second state": (feature("observation.other", "STATE", [2]), "one state"),
    "language": (feature("observation.language", "LANGUAGE", [2]), "LANGUAGE"),
    "depth": (feature("observation.images.depth", "VISUAL", [1, 48, 48]), "image \\(3, height, width\\)"),
    "another output": (lambda b: b["output_features"].update(x={"type": "ACTION", "shape": [1]}), "one output"),
    "no state": (lambda b: b["input_features"].pop("observation.state"), "one state"),
    "stride": (lambda b: b.update(n_action_steps=9), "expected a stride"),
    "wider": (lambda b: b.update(down_dims=[16, 48], n_groups=8), "expected 'diffusion.unet"),
    "deeper": (lambda b: b.update(down_dims=[16, 32, 32]), "missing \\(diffusion.unet"),
    "shallower": (lambda b: b.update(down_dims=[16]), "unexpected \\(diffusion.unet"),
    "huge": (lambda b: b.update(down_dims=[1 << 20, 1 << 21]), r"at most 16 widths up to 65536"),
    "no groups": (lambda b: b.update(n_groups=0), r"groups in \[1, 1024\]"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS)
def test_what_is_not_supported_is_named(change, message, folder) -> None:
    edited(folder / "config.json", change)
    with pytest.raises(Noise2ActionError, match=message):
        imported(folder)


def weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


KEY = "diffusion.unet.mid_modules.0.conv1.block.0.weight"
WEIGHTS = {
    "missing": (lambda t: t.pop(KEY), f"1 missing \\({KEY}\\) and 0 unexpected \\(none\\)"),
    "unexpected": (lambda t: t.update(extra=torch.zeros(1)), "0 missing \\(none\\) and 1 unexpected \\(extra\\)"),
    "shape": (lambda t: t.update({KEY: torch.zeros(3)}), f"expected '{KEY}' as torch.float32"),
    "dtype": (lambda t: t.update({KEY: t[KEY].half()}), "got torch.float16"),
    "finite": (lambda t: t.update({KEY: t[KEY] / 0}), f"NaN or infinity in '{KEY}'"),
    "both layouts": (lambda t: t.update({"normalize_inputs.buffer_x.min": torch.zeros(1)}), "normalize_inputs"),
}


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_no_weight_is_missing_or_left_over(change, message, folder) -> None:
    weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        imported(folder)


PRE, STATE_FILE = "policy_preprocessor.json", "policy_preprocessor_step_3_normalizer_processor.safetensors"


def step(body, place):
    return body["steps"][place]


PROCESSORS = {
    "another step": (lambda b: b["steps"].append({"registry_name": "tokenizer_processor"}), "'tokenizer_processor'"),
    "no normaliser": (lambda b: b["steps"].pop(), "one step 'normalizer_processor', got 0"),
    "outside": (lambda b: step(b, 3).update(state_file="../x.safetensors"), "a file beside it"),
    "some keys": (
        lambda b: step(b, 3)["config"].update(normalize_observation_keys=["a"]),
        "normalize_observation_keys",
    ),
    "half precision": (lambda b: step(b, 2)["config"].update(float_dtype="float16"), "'float_dtype' to be null"),
    "mode": (lambda b: step(b, 3)["config"]["norm_map"].update(STATE="QUANTILE10"), "got 'QUANTILE10'"),
    "two actions": (lambda b: step(b, 3)["config"]["norm_map"].update(ACTION="MEAN_STD"), "before and after"),
}


@pytest.mark.parametrize(("change", "message"), PROCESSORS.values(), ids=PROCESSORS)
def test_processors_that_do_something_else_are_refused(change, message, folder) -> None:
    edited(folder / PRE, change)
    with pytest.raises(CheckpointError, match=message):
        imported(folder)


def test_statistics_that_are_missing_or_useless_are_named(folder) -> None:
    whole = load_file(folder / STATE_FILE)
    for value, message in (
        (None, "expected the statistic 'max', got"),
        (torch.zeros(7), "3 finite numbers in 'max'"),
        (torch.full((3,), torch.nan), "3 finite numbers in 'max'"),
        (whole["observation.state.min"] - 1, "min <= max"),
    ):
        tensors = {k: v for k, v in whole.items() if k != "observation.state.max"}
        save_file(tensors if value is None else {**tensors, "observation.state.max": value}, folder / STATE_FILE)
        with pytest.raises(CheckpointError, match=message):
            imported(folder)


def test_files_that_are_missing_or_damaged_are_named(folder) -> None:
    (folder / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match=STATE_FILE):
        imported(folder)
    (folder / PRE).unlink()
    with pytest.raises(CheckpointError, match="buffer_observation_state: expected the statistic 'min'"):
        imported(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        imported(folder)
    (folder / "config.json").write_text("{" * 100_000)
    with pytest.raises(CheckpointError, match="expected JSON"):
        imported(folder)
