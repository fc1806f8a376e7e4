from dataclasses import replace

import pytest
import torch

from noise2action.data.points import POINTS
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.times import LossSecondMoment
from noise2action.errors import ConfigError, TrainingError
from noise2action.evaluate.distances import energy_distance
from noise2action.generative import ModelConfig
from noise2action.nets import PointMLPConfig
from noise2action.seeds import derive, generator
from noise2action.train.ema import ConstantEMA
from noise2action.train.generative import GenerativeTrain, fit

close = torch.testing.assert_close
NET = PointMLPConfig(width=32, blocks=2, condition_width=16, time_dim=16)
DATA = POINTS["conditional_mixture"].draw(5000, 0)
CONFIG = ModelConfig((2,), NET, classes=4)
SHORT = GenerativeTrain(steps=4, batch_size=16)


@pytest.mark.unchecked
def test_a_model_of_labelled_points_samples_each_class():
    model = fit(CONFIG, DATA.x, DATA.labels, train=GenerativeTrain(steps=500, batch_size=128), seed=0)
    held_out = POINTS["conditional_mixture"].draw(2000, 1)
    x = model.sample(2000, labels=held_out.labels, nfe=20, generator=generator(0))
    for k in range(4):
        own = held_out.labels == k
        right, wrong = (energy_distance(x[own], held_out.x[held_out.labels == c]) for c in (k, (k + 1) % 4))
        assert right < 0.06
        assert wrong > 0.3
    anything = model.sample(2000, nfe=20, generator=generator(1))
    assert energy_distance(anything, held_out.x) < 0.05


def test_a_training_is_its_seed():
    one, again, other = (fit(CONFIG, DATA.x, DATA.labels, train=SHORT, seed=seed) for seed in (0, 0, 1))
    states = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_result_is_the_average_of_plain_adamw_steps():
    """The same training written out, parameter by parameter."""
    train = replace(SHORT, weight_decay=0.1, grad_clip=0.5, warmup_steps=2, ema=ConstantEMA(0.7))
    found = fit(CONFIG, DATA.x, DATA.labels, train=train, seed=5)
    torch.manual_seed(derive(5, "weights"))
    model = CONFIG.build()
    model.fit_scale(DATA.x)
    average = [p.detach().clone() for p in model.parameters()]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=train.betas)
    draws, noise = generator(5, "batches"), generator(5, "noise")
    for step in range(4):
        rows = torch.randint(5000, (16,), generator=draws)
        optimizer.zero_grad()
        model.loss(DATA.x[rows], DATA.labels[rows], generator=noise).value.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = train.rate(step, step / 4)
        optimizer.step()
        average = [0.7 * a + 0.3 * p.detach() for a, p in zip(average, model.parameters(), strict=True)]
    for a, p in zip(average, found.parameters(), strict=True):
        close(p, a, rtol=1e-4, atol=1e-6)
    assert not any(p.requires_grad for p in found.parameters())


def test_the_rate_warms_up_and_ends_low():
    train = GenerativeTrain(learning_rate=1.0, warmup_steps=10, final_lr=0.1)
    assert train.rate(0, 0.0) == 0.1
    close(train.rate(100, 0.5), 0.55)
    close(train.rate(100, 1.0), 0.1)


def test_a_budget_in_seconds_ends_by_the_clock():
    train = GenerativeTrain(seconds=2.0, steps=3)
    assert [train.progress(10**6, s) for s in (0.0, 1.0, 5.0)] == [0.0, 0.5, 1.0]
    assert GenerativeTrain(steps=4).progress(1, 1e9) == 0.25


def test_statuses_tell_the_mean_loss():
    seen = []
    fit(CONFIG, DATA.x, DATA.labels, train=replace(SHORT, steps=120), on_status=seen.append)
    assert [s.step for s in seen] == [50, 100]
    assert 0 < seen[1].loss < seen[0].loss


def test_a_learning_law_of_times_trains():
    config = ModelConfig((2,), NET, Diffusion(times=LossSecondMoment(buckets=5)))
    model = fit(config, POINTS["mixture"].draw(1000, 0).x, train=replace(SHORT, steps=60))
    assert model.sample(3, generator=generator(0)).isfinite().all()


def test_an_infinite_loss_ends_the_training():
    x = DATA.x.clone()
    x[0] = 3e38
    with pytest.raises(TrainingError, match="finite loss"):
        fit(ModelConfig((2,), NET), x.clamp(max=1e15) * 1e4, train=replace(SHORT, steps=50, learning_rate=1e20))


def test_labels_and_classes_go_together():
    with pytest.raises(ConfigError, match="labels exactly"):
        fit(CONFIG, DATA.x, train=SHORT)
    with pytest.raises(ConfigError, match="labels exactly"):
        fit(ModelConfig((2,), NET), DATA.x, DATA.labels, train=SHORT)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"seconds": -1.0},
        {"batch_size": 0},
        {"learning_rate": float("inf")},
        {"warmup_steps": -1},
        {"betas": (0.9, 1.0)},
    ],
)
def test_budgets_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        GenerativeTrain(**options)
