"""`n2a likelihood` on models and on what has no likelihood."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from noise2action.commands.likelihood import Likelihood, main
from noise2action.data.points import find, source
from noise2action.diffusion.likelihood import Hutchinson
from noise2action.diffusion.ode import FixedSteps
from noise2action.errors import ConfigError, DataError, Noise2ActionError
from noise2action.generative import LatentConfig, ModelConfig, store
from noise2action.generative.likelihood import log_likelihood
from noise2action.nets import PointMLPConfig
from noise2action.nets.autoencoder import MLPAutoencoderConfig
from noise2action.seeds import generator


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of a model that always answers x0_hat = alpha x_t: the denoiser of standard normal data."""
    folder = tmp_path_factory.mktemp("models") / "moons"
    built = ModelConfig((2,), PointMLPConfig(width=8, blocks=1)).build()
    built.fit_scale(find("moons").draw(500, 0).x)
    with torch.no_grad():
        for p in built.net.parameters():
            p.zero_()
    store.save(folder, built, {"data": "moons", "seed": 3})
    return folder


@pytest.mark.parametrize("solver", ["adaptive", "fixed"])
def test_a_model_of_points_in_the_datas_units(model, tmp_path, solver, capsys):
    """v = 0 says N(0, I) in normalised units: a normal of the data's mean and spread in its own."""
    out = tmp_path / "likelihood.json"
    assert main(Likelihood(model, samples=40, solver=solver, out=out)) == 0
    found = json.loads(out.read_text())
    scale = store.load(model).scale
    assert (found["dims"], found["samples"], len(found["nats_by_sample"])) == (2, 40, 40)
    points = source("moons", training=2, size=40, trials=1, seed=3).held_out[0].x
    exact = torch.distributions.Normal(scale.mean, scale.std).log_prob(points).sum(1)
    assert found["nats"]["value"] == pytest.approx(float(exact.mean()), abs=2e-3)
    assert found["nats"]["low"] < found["nats"]["value"] < found["nats"]["high"]
    assert found["bits_per_dimension"]["value"] == pytest.approx(-found["nats"]["value"] / (2 * math.log(2)))
    assert "bits per dimension" in capsys.readouterr().out


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinsons_noise_is_a_choice(tmp_path, noise):
    torch.manual_seed(0)
    model = ModelConfig((2,), PointMLPConfig(width=8, blocks=1)).build().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    store.save(tmp_path, model, {"data": "moons", "seed": 3})
    args = Likelihood(tmp_path, samples=20, solver="fixed", steps=5, trace="hutchinson", noise=noise)
    assert main(replace(args, out=tmp_path / "found.json")) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["trace"] == {"kind": "hutchinson", "noise": noise, "probes": 1}
    points = source("moons", training=2, size=20, trials=1, seed=3).held_out[0].x
    trace, directions = Hutchinson(noise, 1), generator(0, "directions", 0)
    exact = log_likelihood(model, points, solver=FixedSteps(5), trace=trace, generator=directions)
    assert np.concatenate(found["nats_by_sample"]) == pytest.approx(exact.numpy(), rel=1e-5)


def test_network_evaluations_are_counted_and_shown(model, tmp_path, capsys):
    out = tmp_path / "likelihood.json"
    assert main(Likelihood(model, samples=70, solver="fixed", steps=5, out=out)) == 0
    assert (json.loads(out.read_text())["nfe"], json.loads(out.read_text())["batches"]) == (40, 2)
    assert "40 in 2 batches of at most 64" in capsys.readouterr().out


def test_a_latent_model_is_refused_before_anything_is_shown(tmp_path, capsys):
    net = PointMLPConfig(width=8, blocks=1)
    store.save(
        tmp_path, LatentConfig((4,), MLPAutoencoderConfig(latent=(3,), width=8), net).build(), {"data": "digits"}
    )
    with pytest.raises(ConfigError, match="decoder gives samples no density"):
        main(Likelihood(tmp_path))
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_what_does_not_fit_is_told(model, tmp_path):
    (tmp_path / "wide.csv").write_text("1,2,3\n4,5,6\n" * 60)
    wrong: list[tuple[Likelihood, type[Noise2ActionError], str]] = [
        (Likelihood(model, episodes=2), ConfigError, "--samples"),
        (Likelihood(model, samples=0), ConfigError, "--samples: expected a number >= 1"),
        (Likelihood(model, episodes=0), ConfigError, "--episodes: expected a number >= 1"),
        (Likelihood(model, seed=-1), ConfigError, "--seed: expected a number >= 0"),
        (Likelihood(model, out=tmp_path), ConfigError, "folder"),
        (Likelihood(model, probes=0, trace="hutchinson"), ConfigError, "--probes: expected a number >= 1"),
        (Likelihood(model, data=tmp_path / "wide.csv"), DataError, "shape"),
        (Likelihood(tmp_path / "nowhere"), Noise2ActionError, "no such path"),
    ]
    for args, error, words in wrong:
        with pytest.raises(error, match=words):
            main(args)


def test_many_dimensions_are_estimated_and_that_is_told(tmp_path, capsys):
    built = ModelConfig((40,), PointMLPConfig(width=8, blocks=1)).build()
    built.fit_scale(torch.randn(120, 40))
    store.save(tmp_path / "m", built, {})
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(120, 40)))
    args = Likelihood(tmp_path / "m", data=tmp_path / "a.npy", samples=4, solver="fixed", steps=2)
    kinds = {}
    for trace in (None, "exact"):
        assert main(replace(args, trace=trace, out=tmp_path / "found.json")) == 0
        kinds[trace] = json.loads((tmp_path / "found.json").read_text())["trace"]["kind"]
        assert ("40 dimensions: the trace is Hutchinson's estimate" in capsys.readouterr().err) == (trace is None)
    assert kinds == {None: "hutchinson", "exact": "exact"}
