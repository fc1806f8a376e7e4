import pytest
import torch

from noise2action.diffusion.denoisers import Counted
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Straight
from noise2action.diffusion.samplers import Heun
from noise2action.diffusion.targets import EDM, Velocity
from noise2action.diffusion.times import LossSecondMoment
from noise2action.errors import ConfigError, DataError, ShapeError
from noise2action.generative import Guidance, ModelConfig
from noise2action.nets import PointMLPConfig, UNet2dConfig
from noise2action.seeds import generator

close = torch.testing.assert_close
NET = PointMLPConfig(width=16, blocks=1, condition_width=8, time_dim=8)
LABELS = torch.tensor([0, 1, 2, 0, 1])


def model(classes=3, p_uncond=0.1, **options):
    torch.manual_seed(0)
    built = ModelConfig((2,), NET, classes=classes, p_uncond=p_uncond, **options).build()
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.3)
    return built.eval()


def points(n=5, seed=1):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def test_the_scale_is_one_for_all_and_inverts():
    x = points(200) * torch.tensor([3.0, 0.5]) + torch.tensor([10.0, -2.0])
    built = model()
    built.fit_scale(x)
    y = built.normalised(x)
    close(y.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    close(y.square().mean(), torch.tensor(1.0))
    close(built.raw(y), x)
    close(y[:, 0].std() / y[:, 1].std(), x[:, 0].std() / x[:, 1].std())


def test_images_are_scaled_a_channel():
    built = ModelConfig((2, 8, 8), UNet2dConfig(widths=(8,), heads=1)).build()
    x = torch.randn(20, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.tensor([5.0, -5.0])[:, None, None]
    built.fit_scale(x)
    close(built.normalised(x).mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)


def test_data_without_spread_is_refused():
    with pytest.raises(DataError, match="varies"):
        model().fit_scale(torch.ones(10, 2))


def test_guidance_is_its_formula_on_the_network():
    built, x = model(), points()
    t = torch.tensor(0.6)
    bound = [
        built.config.objective.denoiser(lambda x_t, s, k=labels: built.net(x_t, s, k))
        for labels in (LABELS, torch.full((5,), 3))
    ]
    conditional, null = (d(x, t) for d in bound)
    assert torch.equal(built.denoiser(LABELS)(x, t), conditional)
    assert torch.equal(built.denoiser()(x, t), null)
    assert torch.equal(built.denoiser(LABELS, w=-1.0)(x, t), null)
    close(built.denoiser(LABELS, w=2.5)(x, t), 3.5 * conditional - 2.5 * null)
    outside = Guidance(2.5, interval=(0.1, 0.5))
    assert torch.equal(built.denoiser(LABELS, w=outside)(x, t), conditional)


def test_guided_sampling_calls_the_network_once_a_step():
    built, calls = model(), []
    built.net.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    built.sample(5, nfe=7, labels=LABELS, w=1.0, generator=generator(0))
    assert calls == [10] * 7


def test_a_sample_is_that_of_the_sampler_in_raw_units():
    built = model(classes=0)
    built.fit_scale(points(50) * 4 + 7)
    counted = []

    def count(denoise):
        counted.append(Counted(denoise))
        return counted[0]

    x = built.sample(5, sampler=Heun(), nfe=9, guide=count, generator=generator(0))
    assert counted[0].nfe == 9
    again = built.sample(5, sampler=Heun(), nfe=9, generator=generator(0))
    assert torch.equal(x, again)
    # A denoiser that answers the mean of the data is sampled to exactly that.
    still = built.sample(5, guide=lambda _: lambda x_t, t: torch.zeros_like(x_t), generator=generator(0))
    close(still, built.scale.mean.expand(5, 2))


def test_clip_bounds_what_is_sampled():
    built = model(classes=0)
    built.fit_scale(points(50))
    x = built.sample(50, nfe=3, clip=0.2, generator=generator(0))
    assert float(built.normalised(x).abs().max()) <= 0.2 + 1e-5


def test_labels_are_hidden_with_their_probability():
    built, seen = model(p_uncond=0.3), []
    built.net.register_forward_hook(lambda _, inputs, __: seen.append(inputs[2]))
    labels = torch.arange(6000) % 3
    built.loss(points(6000), labels, generator=generator(0))
    hidden = seen[0] == 3
    assert abs(float(hidden.double().mean()) - 0.3) < 4 * (0.3 * 0.7 / 6000) ** 0.5
    assert torch.equal(seen[0][~hidden], labels[~hidden])


def test_the_loss_is_the_objective_on_normalised_data():
    built = model(classes=0, objective=Diffusion(Straight(), Velocity()))
    x = points(64) * 3 + 1
    built.fit_scale(x)
    none = torch.zeros(64, dtype=torch.int64)
    expected = built.config.objective.loss(
        lambda x_t, t: built.net(x_t, t, none), built.normalised(x), generator=generator(0)
    )
    assert torch.equal(built.loss(x, generator=generator(0)).value, expected.value)


def test_a_law_of_times_learns_from_the_losses():
    built = model(classes=0, objective=Diffusion(times=LossSecondMoment(buckets=4, history=2)))
    built.loss(points(64), generator=generator(0))
    assert not built.memory.any()  # a measurement leaves no trace
    built.train().loss(points(64), generator=generator(0))
    assert (built.memory[:, 0] > 0).all()
    assert "memory" not in built.state_dict()


def test_several_labels_add_up_with_their_weights():
    built, x, t = model(), points(), torch.tensor(0.6)
    other = torch.tensor([2, 2, 0, 1, 1])
    both = torch.stack([LABELS, other])
    one, two, null = (d(x, t) for d in (built.denoiser(LABELS), built.denoiser(other), built.denoiser()))
    for w, (first, second) in (((1.5, 0.5), (1.5, 0.5)), (2.0, (2.0, 2.0)), (0.0, (0.0, 0.0))):
        expected = (1 + first) * one + (1 + second) * two - (1 + first + second) * null
        close(built.denoiser(both, w=w)(x, t), expected)
    # Weights that leave one condition: its own bits.
    assert torch.equal(built.denoiser(both, w=(0.0, -1.0))(x, t), one)
    assert torch.equal(built.denoiser(both, w=(-1.0, 0.0))(x, t), two)
    assert torch.equal(built.denoiser(both, w=(-1.0, -1.0))(x, t), null)
    assert torch.equal(built.denoiser(LABELS[None], w=(0.0,))(x, t), one)


def test_several_labels_are_one_call_a_step():
    built, calls = model(), []
    built.net.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    built.sample(5, nfe=4, labels=torch.stack([LABELS, LABELS]), w=(1.5, 0.5), generator=generator(0))
    assert calls == [15] * 4


@pytest.mark.parametrize(
    ("labels", "w"), [(LABELS, (1.0, 2.0)), (torch.stack([LABELS] * 2), (1.0,)), (None, (1.0, 2.0))]
)
def test_as_many_weights_as_labels(labels, w):
    with pytest.raises(ConfigError, match=r"one guidance weight a label \(\d\)"):
        model().denoiser(labels, w=w)


def test_edm_is_for_the_spread_that_data_is_normalised_to():
    with pytest.raises(ConfigError, match=r"data_std=1.0\), got 0.5"):
        model(objective=Diffusion(target=EDM()))
    assert model(objective=Diffusion(target=EDM(data_std=1.0))).config.classes == 3


@pytest.mark.parametrize(
    ("built", "ask", "message"),
    [
        ({"classes": 0}, {"w": 1.0}, "without"),
        ({"p_uncond": 0.0}, {"labels": LABELS, "w": 1.0}, "p_uncond"),
        ({"p_uncond": 0.0}, {}, "p_uncond"),
        ({}, {"w": 1.0}, "labels to guide"),
    ],
)
def test_guidance_needs_a_trained_null(built, ask, message):
    with pytest.raises(ConfigError, match=message):
        model(**built).denoiser(**ask)


def test_wrong_labels_and_shapes_are_refused():
    built = model()
    with pytest.raises(ConfigError, match="below 3 classes, got 0 to 3"):
        built.sample(2, labels=torch.tensor([0, 3]))
    with pytest.raises(ShapeError, match="one label a sample"):
        built.sample(3, labels=torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="one label a sample"):
        built.sample(3, labels=torch.tensor([0, 1]), w=1.0)
    with pytest.raises(ShapeError, match="samples of shape"):
        built.loss(torch.zeros(4, 3), LABELS[:4], generator=generator(0))
    for options in ({"shape": ()}, {"shape": (0,)}, {"classes": -1}, {"p_uncond": 1.0}):
        with pytest.raises(ConfigError):
            ModelConfig(**{"shape": (2,), **options})
