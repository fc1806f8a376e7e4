"""`n2a image`, end to end on a few steps: what it writes, and what it refuses."""

import json

import numpy as np
import pytest
import torch

from noise2action.commands.image import WEIGHTS, Image, main
from noise2action.commands.sample import Sample
from noise2action.commands.sample import main as sample
from noise2action.data.digits import digits
from noise2action.diffusion.ode import FixedSteps
from noise2action.errors import ConfigError
from noise2action.evaluate.distances import frechet
from noise2action.evaluate.images import Judge
from noise2action.generative import store


@pytest.fixture(scope="module", params=[False, True], ids=["pixels", "latent"])
def trained(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("image") / "run"
    args = Image(data="digits", out=out, latent=request.param, steps=3, widths=(8, 8), batch_size=8, nfe=2)
    assert main(args) == 0
    return args


def test_everything_is_written_and_finite(trained):
    written = {path.name for path in trained.out.iterdir()}
    assert written >= {"config.json", "model.safetensors", "metrics.json", "samples.png", "denoising.gif"}
    metrics = json.loads((trained.out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert [row["guidance"] for row in metrics["samples"]] == list(WEIGHTS)
    assert metrics["held_out"]["accuracy"] > 0.95
    assert metrics["held_out"]["frechet"] < metrics["samples"][0]["frechet"]
    assert ("reconstruction" in metrics) == trained.latent
    parts = [metrics["seconds"].pop(part) for part in ("training", "sampling", "measuring", "figures")]
    assert min(parts) > 0
    assert sum(parts) <= metrics["seconds"].pop("total")


def test_the_metrics_are_those_of_the_model_that_was_saved(trained):
    metrics = json.loads((trained.out / "metrics.json").read_text())
    training, held_out = digits(seed=0)
    model, judge = store.load(trained.out), Judge(training.x, training.labels)
    if trained.latent:
        again = model.raw(model.normalised(held_out.x))
        error = float((again - held_out.x).square().mean().sqrt())
        assert error == pytest.approx(metrics["reconstruction"]["rms_error"], rel=1e-5)
    assert judge(held_out.x, held_out.labels).frechet == pytest.approx(metrics["held_out"]["frechet"], rel=1e-5)


def test_a_saved_model_is_sampled_by_label(trained, tmp_path):
    out = tmp_path / "threes.npz"
    assert sample(Sample(trained.out, out, n=4, label=(3,), guidance=(1.0,), nfe=3)) == 0
    with np.load(out) as found:
        assert found["x"].shape == (4, 1, 8, 8)
        assert found["labels"].tolist() == [3] * 4


def test_the_ways_between_held_out_images_begin_and_end_at_them(trained, tmp_path):
    out = tmp_path / "a.npz"
    assert sample(Sample(trained.out, out, n=2, interpolate="spherical")) == 0
    model, held_out = store.load(trained.out), digits(seed=0)[1]
    ends = model.raw(model.normalised(held_out.x[:4])).numpy()
    with np.load(out) as found:
        ways = found["x"].reshape(2, 11, 1, 8, 8)
    np.testing.assert_allclose(ways[:, 0], ends[:2], atol=0.02)
    np.testing.assert_allclose(ways[:, -1], ends[2:], atol=0.02)
    assert out.with_suffix(".png").exists()


def test_images_go_to_noise_and_back(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("noise2action.commands.encode.SOLVER", FixedSteps(15))
    out = tmp_path / "noise.npz"
    assert sample(Sample(trained.out, out, n=3, encode=())) == 0
    model, held_out = store.load(trained.out), digits(seed=0)[1]
    x = model.raw(model.normalised(held_out.x[:3])).numpy()
    with np.load(out) as found:
        np.testing.assert_allclose(found["decoded"], x, atol=0.02)
        assert found["labels"].tolist() == held_out.labels[:3].tolist()
        shape = model.autoencoder.latent if trained.latent else held_out.x.shape[1:]
        assert found["x"].shape == (3, *shape)
    np.savez(tmp_path / "mine.npz", x=held_out.x[:2].numpy())
    assert sample(Sample(trained.out, encode=(tmp_path / "mine.npz",))) == 0
    assert "2 samples to noise and back" in capsys.readouterr().out


def test_the_judge_is_frechet_on_principal_components_and_the_nearest_neighbour():
    g = torch.Generator().manual_seed(0)
    train = torch.randn(60, 1, 3, 3, generator=g)
    labels = torch.arange(60) % 3
    shown, asked = torch.randn(40, 1, 3, 3, generator=g), torch.arange(40) % 3
    found = Judge(train, labels, components=4)(shown, asked)
    flat, other = train.flatten(1).double(), shown.flatten(1).double()
    centred = flat - flat.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -4:]
    assert found.frechet == pytest.approx(frechet((other - flat.mean(0)) @ axes, centred @ axes), rel=1e-6)
    distances = (other[:, None] - flat[None]).norm(dim=2)
    right = labels[distances.argmin(1)] == asked
    assert found.accuracy.value == pytest.approx(float(right.double().mean()))
    assert found.nearest == pytest.approx(float(distances.min(1).values.median()))


def test_training_images_are_told_to_be_copies():
    training, held_out = digits()
    judge = Judge(training.x, training.labels)
    copied = judge(training.x[:300], training.labels[:300])
    assert copied.nearest < 1e-6 < judge(held_out.x, held_out.labels).nearest
    assert copied.accuracy.value == 1.0


def test_bad_input_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'heun'"):
        main(Image(data="digits", out=tmp_path / "a", sampler="heum"))
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        main(Image(data="digits", out=tmp_path / "a", path="cosin"))
    with pytest.raises(ConfigError, match="p_uncond=0"):
        main(Image(data="digits", out=tmp_path / "a", p_uncond=0.0, guidance=2.0))
    with pytest.raises(ConfigError, match="use target=v"):
        main(Image(data="digits", out=tmp_path / "a", target="epsilon"))
    with pytest.raises(ConfigError, match="--widths: expected channels divisible by 8"):
        main(Image(data="digits", out=tmp_path / "a", widths=(8, 12)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="--overwrite"):
        main(Image(data="digits", out=tmp_path / "b"))
    assert not (tmp_path / "a").exists()
