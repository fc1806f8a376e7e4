"""The training loss and the denoiser of a trained network, on every path with every target."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from noise2action.diffusion.objective import (
    SNR,
    AnyWeight,
    Diffusion,
    Likelihood,
    MinSNR,
    Uniform,
    Weight,
    masked_mean,
)
from noise2action.diffusion.paths import (
    VE,
    AnyPath,
    Cosine,
    LinearVP,
    Path,
    Straight,
    SubVP,
    Table,
    TerminalSNRWarning,
)
from noise2action.diffusion.targets import AnyTarget, Clean, Epsilon, Target, V, Velocity
from noise2action.errors import PathError, ShapeError
from noise2action.seeds import randn_like

close = torch.testing.assert_close
SPAN = (0.02, 0.98)
"""Inside it every target is regular."""

PAIRS = [
    pytest.param(path(), target(), id=f"{path.__name__}-{target.__name__}")
    for path in get_args(AnyPath)
    for target in get_args(AnyTarget)
]
WEIGHTS: list[Weight] = [weight() for weight in get_args(AnyWeight)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(batch: int = 64, horizon: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, horizon, 2, generator=seeded(9), dtype=dtype)


def drawn(diffusion: Diffusion, x0: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the times and noise that `loss` draws from a generator with this seed."""
    generator = seeded(seed)
    t = diffusion.draw_times(len(x0), generator)
    return t, randn_like(x0, generator)


def column(values: Tensor) -> Tensor:
    return values[:, None, None]


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_the_network_is_given_and_asked_what_the_formulas_say(path: Path, target: Target) -> None:
    diffusion, x0 = Diffusion(path=path, target=target, span=SPAN), data()
    t, eps = drawn(diffusion, x0, 1)
    seen: list[tuple[Tensor, Tensor]] = []

    def constant(x: Tensor, time: Tensor) -> Tensor:
        seen.append((x, time))
        return torch.full_like(x, 0.25)

    losses = diffusion.loss(constant, x0, generator=seeded(1))
    scaled, time = seen[0]
    assert torch.equal(time, t)
    assert torch.equal(losses.t, t)
    x_t = column(path.alpha(t)) * x0 + column(path.sigma(t)) * eps
    close(scaled, x_t * column(target.input_scale(path, t)), rtol=1e-13, atol=1e-13)
    p, q = target.row(path, t)
    expected = ((0.25 - column(p) * x0 - column(q) * eps) ** 2).mean((1, 2))
    close(losses.value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_an_oracle_has_no_loss_and_denoises_to_the_data(path: Path, target: Target, weight: Weight) -> None:
    diffusion, x0 = Diffusion(path=path, target=target, weight=weight, span=SPAN), data()
    t, eps = drawn(diffusion, x0, 2)
    y = target.encode(path, t, x0, eps)
    # A weight of up to 1 / sigma^2 = 1e8 (LinearVP at t = 0.02 has 1e2) on rounding of 1e-32.
    assert diffusion.loss(lambda x, time: y, x0, generator=seeded(2)).value.max() < 1e-20
    x_t = path.noised(x0, t, eps)
    close(diffusion.denoiser(lambda x, time: y)(x_t, t), x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_times_shared_or_a_sample_or_an_action_agree(path: Path, target: Target) -> None:
    diffusion, x_t = Diffusion(path=path, target=target, span=SPAN), data(4)

    def net(x: Tensor, time: Tensor) -> Tensor:
        return (2 * x).tanh()

    denoise = diffusion.denoiser(net)
    for value in path.snap(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)):
        shared = denoise(x_t, value)
        # Python numbers against tensors: the same coefficients, rounded in another order.
        close(denoise(x_t, value.expand(4)), shared, rtol=1e-12, atol=1e-12)
        close(denoise(x_t, value.expand(4, 6)), shared, rtol=1e-12, atol=1e-12)
        y = net(x_t * target.input_scale(path, value), value)
        close(shared, target.decode(path, value, x_t, y), rtol=1e-11, atol=1e-11)


def test_a_shared_time_is_passed_on_as_it_came() -> None:
    seen: list[Tensor] = []

    def net(x: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return x

    denoise = Diffusion().denoiser(net)
    for t in (torch.tensor(0.5), torch.full((4,), 0.5), torch.full((4, 6), 0.5)):
        denoise(data(4, dtype=torch.float32), t)
        assert seen[-1] is t


def perturbed_loss(diffusion: Diffusion, x0: Tensor, seed: int) -> Tensor:
    """Return the loss of a network whose x0_hat is wrong by exactly 0.1 everywhere."""
    t, eps = drawn(diffusion, x0, seed)
    path, target = diffusion.path, diffusion.target
    # The same x_t and another x0: eps_hat follows.
    x_t = path.noised(x0, t, eps)
    x0_hat = x0 + 0.1
    eps_hat = (x_t - column(path.alpha(t)) * x0_hat) / column(path.sigma(t))
    y = target.encode(path, t, x0_hat, eps_hat)
    return diffusion.loss(lambda x, time: y, x0, generator=seeded(seed)).value


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_a_weight_on_x0_means_the_same_for_every_target(path: Path, target: Target) -> None:
    """The loss is weight(t) (x0_hat - x0)^2, whatever the network regresses: through det^2 / sigma^2."""
    x0 = data()
    for weight in (SNR(), Likelihood(), MinSNR(gamma=5.0), MinSNR(gamma=0.5)):
        diffusion = Diffusion(path=path, target=target, weight=weight, span=SPAN)
        t, _ = drawn(diffusion, x0, 3)
        snr = (path.alpha(t) / path.sigma(t)) ** 2
        on_x0 = snr.clamp(max=weight.gamma) if isinstance(weight, MinSNR) else snr
        if isinstance(weight, Likelihood):  # g^2 (score_hat - score)^2, and score = (alpha x0 - x_t) / sigma^2
            on_x0 = path.diffusion_squared(t) * (path.alpha(t) / path.sigma(t) ** 2) ** 2
        close(perturbed_loss(diffusion, x0, 3), on_x0 * 0.01, rtol=1e-7, atol=0)


@pytest.mark.parametrize("path", [p() for p in get_args(AnyPath)], ids=lambda p: type(p).__name__)
def test_snr_weighted_clean_loss_is_the_simple_epsilon_loss(path: Path) -> None:
    x0 = data()
    clean = Diffusion(path=path, target=Clean(), weight=SNR(), span=SPAN)
    epsilon = Diffusion(path=path, target=Epsilon(), weight=Uniform(), span=SPAN)
    close(perturbed_loss(clean, x0, 4), perturbed_loss(epsilon, x0, 4), rtol=1e-7, atol=0)


@pytest.mark.parametrize("path", [LinearVP(), Table()], ids=lambda p: type(p).__name__)
def test_simple_v_loss_weighs_x0_by_snr_plus_one(path: Path) -> None:
    """Salimans & Ho 2022, section 4: on a variance-preserving path."""
    diffusion, x0 = Diffusion(path=path, target=V(), span=SPAN), data()
    t, _ = drawn(diffusion, x0, 5)
    snr = (path.alpha(t) / path.sigma(t)) ** 2
    close(perturbed_loss(diffusion, x0, 5), (snr + 1) * 0.01, rtol=1e-7, atol=0)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_published_formula_for_each_target(gamma: float) -> None:
    """Hang et al. 2023, section 3.4: min(snr, g) on x0; min(snr, g)/snr on eps; min(snr, g)/(snr + 1) on v."""
    path, weight = LinearVP(), MinSNR(gamma=gamma)
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    snr = (path.alpha(t) / path.sigma(t)) ** 2
    capped = snr.clamp(max=gamma)
    close(weight.on_target(path, Clean(), t), capped, rtol=1e-11, atol=0)
    close(weight.on_target(path, Epsilon(), t), capped / snr, rtol=1e-11, atol=0)
    close(weight.on_target(path, V(), t), capped / (snr + 1), rtol=1e-11, atol=0)


@pytest.mark.parametrize("weight", [Uniform(), SNR(), MinSNR()], ids=lambda w: type(w).__name__)
def test_weights_are_finite_at_the_ends_of_flow_matching(weight: Weight) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert bool(weight.on_target(Straight(), Velocity(), ends).isfinite().all())
    assert bool(weight.on_target(Straight(), V(), ends).isfinite().all())


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
@pytest.mark.parametrize("target", [Epsilon(), V(), Clean()], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("path", [LinearVP(), SubVP(), VE(sigma_max=50.0), Cosine()], ids=lambda v: type(v).__name__)
def test_likelihood_weighting_makes_the_loss_the_divergence(path: Path, target: Target) -> None:
    """Song et al. 2021b, theorem 1 and corollary 1, for Gaussians.

    Where the model's score is that of N(0, r^2) noised, KL(p_0 | q_0) - KL(p_1 | q_1) is exactly half the weighted
    error above the least possible one: in nats T/2 times the mean loss of one dimension.
    """
    span, n, data_std, r = (0.02, 0.97), 200_000, 0.7, 1.1
    x0 = data_std * torch.randn(n, 1, generator=seeded(3), dtype=torch.float64)
    objective = Diffusion(path=path, target=target, weight=Likelihood(), span=span)

    def loss(std: float) -> Tensor:
        def net(scaled: Tensor, t: Tensor) -> Tensor:
            t = t.unsqueeze(1)
            x_t = scaled / target.input_scale(path, t)
            alpha, sigma = path.alpha(t), path.sigma(t)
            x0_hat = alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t
            return target.encode(path, t, x0_hat, (x_t - alpha * x0_hat) / sigma)

        return objective.loss(net, x0, generator=seeded(4)).value

    def divergence(t: float) -> float:
        at = torch.tensor(t, dtype=torch.float64)
        p, q = (path.alpha(at) ** 2 * s**2 + path.variance(at) for s in (data_std, r))
        return 0.5 * (p / q - 1 - (p / q).log()).item()

    excess = (loss(r) - loss(data_std)) * (span[1] - span[0]) / 2
    expected = divergence(span[0]) - divergence(span[1])
    assert abs(excess.mean().item() - expected) < 5 * excess.std().item() / n**0.5
    assert excess.std().item() / n**0.5 < 0.03 * expected


def test_an_infinite_likelihood_weight_names_the_remedy() -> None:
    for path in (LinearVP(), Straight(), VE(), Cosine()):
        with pytest.raises(PathError, match=r"finite Likelihood weight.*use a span from t>0, such as \(0.001, 1\)"):
            Diffusion(path=path, weight=Likelihood())
        Diffusion(path=path, weight=Likelihood(), span=(0.001, 1.0))
    Diffusion(path=Table(), weight=Likelihood())  # the first step of a table is noisy


def some_valid(batch: int = 64, horizon: int = 6) -> Tensor:
    return torch.arange(horizon) < torch.arange(batch).remainder(horizon).unsqueeze(1) + 1


def test_the_loss_is_the_mean_over_valid_entries() -> None:
    diffusion, x0, valid = Diffusion(), data(), some_valid()
    t, eps = drawn(diffusion, x0, 6)
    error = diffusion.target.encode(diffusion.path, t, x0, eps) ** 2
    losses = diffusion.loss(lambda x, time: torch.zeros_like(x), x0, generator=seeded(6), valid=valid).value
    for value, row, real in zip(losses, error, valid, strict=True):
        assert value.item() == pytest.approx(row[real].mean().item(), rel=1e-12)
    everything = torch.ones_like(valid)
    whole = diffusion.loss(lambda x, time: torch.zeros_like(x), x0, generator=seeded(6)).value
    masked = diffusion.loss(lambda x, time: torch.zeros_like(x), x0, generator=seeded(6), valid=everything).value
    close(masked, whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("padding", [1e6, float("nan"), float("inf")])
def test_what_padding_holds_reaches_neither_loss_nor_gradient(padding: float) -> None:
    """A network that mixes actions learns the same, to the last bit, whatever the padding holds."""
    valid = some_valid()
    gradients: list[Tensor] = []
    values: list[Tensor] = []
    for fill in (0.0, padding):
        net = nn.Conv1d(2, 2, 3, padding=1).double()
        with torch.no_grad():
            net.weight.fill_(0.3)
            net.bias.fill_(0.1)
        x0 = torch.where(valid.unsqueeze(-1), data(), fill)
        loss = Diffusion(path=LinearVP(), target=V()).loss(
            lambda x, t, net=net: net(x.mT).mT, x0, generator=seeded(7), valid=valid
        )
        loss.value.mean().backward()
        assert net.weight.grad is not None
        gradients.append(net.weight.grad)
        values.append(loss.value.detach())
    assert torch.equal(*values)
    assert torch.equal(*gradients)
    assert bool(gradients[0].isfinite().all())


def test_a_nan_in_a_valid_entry_is_not_hidden() -> None:
    x0 = data()
    x0[3, 0, 1] = torch.nan
    loss = Diffusion().loss(lambda x, t: x, x0, generator=seeded(8), valid=some_valid()).value
    assert loss.isnan().nonzero().flatten().tolist() == [3]


def test_the_gradient_with_respect_to_padded_outputs_is_zero() -> None:
    valid, y = some_valid(), torch.zeros(64, 6, 2, dtype=torch.float64, requires_grad=True)
    Diffusion().loss(lambda x, t: y, data(), generator=seeded(9), valid=valid).value.sum().backward()
    assert y.grad is not None
    assert not y.grad[~valid].any()
    assert bool((y.grad[valid] != 0).all())


def test_masked_mean_written_out() -> None:
    error = torch.tensor([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [torch.nan, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    assert masked_mean(error, valid).tolist() == [4.0, 2.0, 0.0]
    assert masked_mean(error[:1], None).tolist() == [4.0]
    assert masked_mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]])).tolist() == [1.0]


def test_the_loss_is_reproducible_and_leaves_its_inputs_alone() -> None:
    x0, valid = data(dtype=torch.float32), some_valid()
    before = x0.clone()

    def value(seed: int) -> Tensor:
        return Diffusion().loss(lambda x, t: x, x0, generator=seeded(seed), valid=valid).value

    assert torch.equal(value(1), value(1))
    assert not torch.equal(value(1), value(2))
    assert torch.equal(x0, before)
    assert value(1).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
def test_float32_losses_keep_the_small_end_of_the_path() -> None:
    """Scales are float64 and cast once: at t = 1e-6 on LinearVP sigma is 3e-4, and 1 - alpha^2 would be 0."""
    diffusion = Diffusion(path=LinearVP(), target=Epsilon(), span=(0.0, 2e-6))
    x0 = torch.zeros(256, 1, 1)
    inputs: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        inputs.append(x)
        return torch.zeros_like(x)

    losses = diffusion.loss(net, x0, generator=seeded(1))
    _, eps = drawn(diffusion, x0, 1)
    sigma = LinearVP().sigma(diffusion.draw_times(256, seeded(1))).float()
    close(inputs[0].flatten(), sigma * eps.flatten(), rtol=1e-5, atol=0)
    close(losses.value, eps.flatten() ** 2, rtol=1e-5, atol=0)


def test_a_network_of_another_shape_raises() -> None:
    with pytest.raises(ShapeError, match=r"expected a network that returns \(64, 6, 2\), got \(64, 6, 1\)"):
        Diffusion().loss(lambda x, t: x[..., :1], data(), generator=seeded())


@pytest.mark.parametrize("span", [(0.5, 0.5), (0.6, 0.4), (-0.1, 1.0), (0.0, 1.1), (0.0, float("nan"))])
def test_a_span_outside_the_path_raises(span: tuple[float, float]) -> None:
    with pytest.raises(PathError, match="expected a span"):
        Diffusion(span=span)


def test_the_mean_loss_of_a_known_network_is_its_expectation() -> None:
    """With x0 = 0, epsilon target and a network that returns 0 the loss is E eps^2 = 1."""
    n = 20_000
    loss = Diffusion(path=LinearVP(), target=Epsilon()).loss(
        lambda x, t: torch.zeros_like(x), torch.zeros(n, 1, dtype=torch.float64), generator=seeded(2)
    )
    assert abs(loss.value.mean().item() - 1) < 5 * (2 / n) ** 0.5  # variance of a chi square is 2


def test_a_span_that_starts_with_signal_is_told() -> None:
    """The span's own start is what sampling starts from."""
    with pytest.warns(TerminalSNRWarning, match=r"got 1 at t=0.5 on Straight.*span up to 1"):
        Diffusion(path=Straight(), span=(0.0, 0.5))
    with pytest.raises(PathError, match="terminal SNR"):
        Diffusion(path=Straight(), span=(0.0, 0.5), strict=True)


def test_a_weight_that_is_infinite_on_the_span_raises_and_a_capped_one_is_finite() -> None:
    with pytest.raises(PathError, match=r"finite SNR weight on the span.*use a span from t>0"):
        Diffusion(path=Cosine(), target=Clean(), weight=SNR())
    Diffusion(path=Cosine(), target=Clean(), weight=SNR(), span=(0.001, 1.0))
    Diffusion(path=Cosine(), target=Clean(), weight=MinSNR())
    zero = torch.zeros(1, dtype=torch.float64)
    assert MinSNR(gamma=3.0).on_target(Cosine(), Clean(), zero).item() == 3.0
