import json
from dataclasses import replace

import pytest
import torch

from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Straight, Table, linear_betas
from noise2action.diffusion.targets import Velocity
from noise2action.errors import CheckpointError, ConfigError
from noise2action.generative import ModelConfig, store
from noise2action.nets import PointMLPConfig, UNet2dConfig
from noise2action.seeds import generator

NET = PointMLPConfig(width=16, blocks=1, condition_width=8, time_dim=8)
CONFIGS = [
    ModelConfig((2,), NET, classes=3),
    ModelConfig((3,), NET, Diffusion(Straight(), Velocity(), span=(0.001, 1.0))),
    ModelConfig((2,), NET, Diffusion(Table(linear_betas(50)))),
    ModelConfig((1, 8, 8), UNet2dConfig(widths=(8,), heads=1), classes=2, p_uncond=0.0),
]


def model(config):
    torch.manual_seed(0)
    built = config.build()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.2)
    built.fit_scale(torch.randn(50, *config.shape) * 3 + 1)
    return built.eval()


@pytest.fixture
def folder(tmp_path):
    store.save(tmp_path / "m", model(CONFIGS[0]), {"data": "moons"})
    return tmp_path / "m"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.shape}-{c.classes}")
def test_what_is_loaded_samples_the_same_bits(tmp_path, config):
    built = model(config)
    store.save(tmp_path / "m", built, {"seed": 3})
    loaded = store.load(tmp_path / "m")
    assert loaded.config == config
    assert store.about(tmp_path / "m") == {"seed": 3}
    labels = torch.tensor([0, 1]) if config.classes else None
    one, other = (m.sample(2, nfe=3, labels=labels, generator=generator(0)) for m in (built, loaded))
    assert torch.equal(one, other)


def test_a_model_is_replaced_whole(folder):
    other = replace(CONFIGS[0], classes=5)
    store.save(folder, model(other), {})
    assert store.load(folder).config == other
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "folder with a model"),
        (lambda f: (f / "config.json").write_text("{"), "expected JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "another kind of folder"),
        (lambda f: (f / "model.safetensors").unlink(), "readable file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "others"),
        (lambda f: edit(f, format=2), "format 1"),
        (lambda f: edit(f, model=json.loads((f / "config.json").read_text())["model"] | {"classes": 4}), "weights of"),
    ],
)
def test_damage_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        store.load(folder)


def test_an_unknown_key_is_answered_with_the_closest(folder):
    edit(folder, model=json.loads((folder / "config.json").read_text())["model"] | {"clases": 4})
    with pytest.raises(ConfigError, match="did you mean 'classes'"):
        store.load(folder)


def test_a_folder_holds_a_model_or_not(folder, tmp_path):
    assert store.holds(folder)
    assert not store.holds(tmp_path)
    edit(folder, experiment={})
    with pytest.raises(CheckpointError, match="use `n2a eval"):
        store.load(folder)
    (folder / "config.json").write_text("{")
    assert not store.holds(folder)
