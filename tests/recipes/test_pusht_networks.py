"""PushT from state with other networks: the same data and conventions, and the process of the paper."""

import math

import pytest
import torch

from noise2action.diffusion.targets import Epsilon
from noise2action.recipes import find
from noise2action.train.config import TrainConfig
from noise2action.train.folder import read_metrics
from noise2action.train.loop import fit
from small_policies import job

NAMES = ("pusht_state_unet", "pusht_state_transformer")


@pytest.mark.parametrize("name", NAMES)
def test_data_and_conventions_are_those_of_the_mlp(name):
    one, other = find("pusht_state"), find(name)
    assert (one.task, one.data, one.policy.spec) == (other.task, other.data, other.policy.spec)
    assert one.policy.net != other.policy.net


def test_the_unets_process_is_the_papers():
    policy = find("pusht_state_unet").policy
    path = policy.objective.path
    assert isinstance(policy.objective.target, Epsilon)
    assert path.steps == 100

    def f(k: int) -> float:
        return math.cos((k / 100 + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f(k) / f(k - 1), 0.999) for k in range(1, 101)]
    torch.testing.assert_close(path.alpha_bar[1:], torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0))
    # Ten of the hundred steps, the noisiest first.
    times = policy.sampling.grid.times(path, policy.sampling.sampler.steps(policy.sampling.nfe))
    torch.testing.assert_close(times, torch.arange(10, -1, -1, dtype=torch.float64) / 10)


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_learns(name, tmp_path):
    recipe = find(name)
    train = TrainConfig(steps=40, warmup_steps=5, learning_rate=1e-3, log_every=10, threads=1, precision="fp32")
    assert fit(job(recipe.policy, train=train, held_out=False), tmp_path)
    losses = [record["loss"] for record in read_metrics(tmp_path) if record["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
