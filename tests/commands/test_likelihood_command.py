"""`n2a likelihood` on models and on what has no likelihood."""

import json
import math

import pytest
import torch

from noise2action.commands.likelihood import Likelihood, main
from noise2action.data.points import find, source
from noise2action.errors import ConfigError, DataError, Noise2ActionError
from noise2action.generative import ModelConfig, store
from noise2action.nets import PointMLPConfig


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


def test_what_does_not_fit_is_told(model, tmp_path):
    (tmp_path / "wide.csv").write_text("1,2,3\n4,5,6\n" * 60)
    wrong: list[tuple[Likelihood, type[Noise2ActionError], str]] = [
        (Likelihood(model, episodes=2), ConfigError, "--samples"),
        (Likelihood(model, samples=0), ConfigError, ">= 1"),
        (Likelihood(model, out=tmp_path), ConfigError, "folder"),
        (Likelihood(model, probes=0, trace="hutchinson"), ConfigError, "probes"),
        (Likelihood(model, data=tmp_path / "wide.csv"), DataError, "shape"),
        (Likelihood(tmp_path / "nowhere"), Noise2ActionError, "no such path"),
    ]
    for args, error, words in wrong:
        with pytest.raises(error, match=words):
            main(args)
