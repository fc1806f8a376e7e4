import re

import pytest
import torch
from safetensors.torch import save_file

from noise2action.encoders.pretrained import load_torchvision, torchvision_state
from noise2action.encoders.resnet import ResNetConfig
from noise2action.errors import CheckpointError

CONFIG = ResNetConfig(widths=(8, 16), blocks=(2, 1), strides=(1, 2), stem="standard", norm="batch")


@pytest.fixture
def net():
    return CONFIG.build(size=(32, 32))


def contents(net):
    head = {"fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10)}
    return {key: value.detach().clone() for key, value in torchvision_state(net).items()} | head


def test_the_keys_are_those_of_torchvision(net):
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = ["conv1.weight", *(f"bn1.{n}" for n in norm), "conv2.weight", *(f"bn2.{n}" for n in norm)]
    down = ["downsample.0.weight", *(f"downsample.1.{n}" for n in norm)]
    names = [f"layer1.{n}.{key}" for n in (0, 1) for key in block] + [f"layer2.0.{key}" for key in block + down]
    assert set(torchvision_state(net)) == {"conv1.weight", *(f"bn1.{n}" for n in norm), *names}


@pytest.mark.parametrize("counted", [True, False])
def test_weights_come_back_from_a_file_and_see_the_same(net, counted, tmp_path):
    net(torch.randn(4, 3, 32, 32))  # statistics of its own
    file = {key: value for key, value in contents(net).items() if counted or "num_batches" not in key}
    save_file(file, tmp_path / "weights.safetensors")
    other = CONFIG.build(size=(32, 32))
    load_torchvision(other, tmp_path / "weights.safetensors")
    for key, value in torchvision_state(other).items():
        assert (not counted and "num_batches" in key) or torch.equal(value, torchvision_state(net)[key]), key
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(other.eval().backbone(x), net.eval().backbone(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("layer2.0.bn1.weight"), r"1 \(layer2.0.bn1.weight\) missing and none unexpected"),
        (lambda f: f.update({"layer3.0.conv1.weight": torch.zeros(1)}), r"1 \(layer3.0.conv1.weight\) unexpected"),
        (
            lambda f: f.update({"conv1.weight": torch.zeros(8, 3, 3, 3)}),
            r"conv1.weight \(8, 3, 7, 7\), got \(8, 3, 3, 3\)",
        ),
        (lambda f: f["bn1.running_var"].fill_(float("nan")), "NaN or infinity in bn1.running_var"),
    ],
)
def test_another_file_is_one_clear_error_and_changes_nothing(net, change, message, tmp_path):
    file = contents(net)
    change(file)
    save_file(file, tmp_path / "weights.safetensors")
    other = CONFIG.build(size=(32, 32))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_torchvision(other, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_weights_of_another_depth_are_named_with_their_number(net, tmp_path):
    save_file(
        contents(ResNetConfig(**{**vars(CONFIG), "blocks": (2, 2)}).build(size=(32, 32))), tmp_path / "w.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"none missing and 12 \(.*, \.\.\.\) unexpected"):
        load_torchvision(net, tmp_path / "w.safetensors")


@pytest.mark.parametrize("body", [None, b"no tensors", b""])
def test_a_file_that_is_none_is_named(net, body, tmp_path):
    path = tmp_path / "weights.safetensors"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_torchvision(net, path)
