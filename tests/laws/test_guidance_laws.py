"""Laws of guidance: against tilted densities in closed form, bit for bit where nothing is mixed."""

import pytest
import torch
from exact import PATHS, f64, name, often
from torch import Tensor, nn

from noise2action.diffusion.denoisers import Counted, Denoiser, cfg, clip, descend
from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.grids import Trailing
from noise2action.diffusion.multistep import ddim
from noise2action.diffusion.paths import Cosine, LinearVP, Path, Straight
from noise2action.diffusion.tableau import run
from noise2action.errors import ConfigError, ShapeError

close = torch.testing.assert_close


def labelled(path: Path) -> Mixture:
    """Four components in the plane, no two alike."""
    means = torch.tensor([[-1.2, 0.3], [0.2, 1.1], [1.0, -0.4], [-0.1, -1.3]], dtype=torch.float64)
    shapes = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.3]], [[0.25, 0.0], [0.0, 0.1]]]
    return Mixture(path, f64(0.3, 0.2, 0.4, 0.1), means, torch.tensor(shapes, dtype=torch.float64))


def stacked(*parts: Mixture) -> Denoiser:
    """Return the denoiser of as many blocks of rows, each under its own condition."""

    def many(x_t: Tensor, t: Tensor) -> Tensor:
        times = t.chunk(len(parts)) if t.ndim else [t] * len(parts)
        blocks = zip(parts, x_t.chunk(len(parts)), times, strict=True)
        return torch.cat([part.denoise(x, time) for part, x, time in blocks])

    return many


def score_of(path: Path, x0_hat: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    return (path.alpha(t) * x0_hat - x_t) / path.variance(t)


def points(path: Path, t: Tensor, n: int = 6) -> Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z * (path.alpha(t) ** 2 + path.variance(t)).sqrt()


@pytest.mark.parametrize("w", [-1.0, -0.4, 0.0, 1.0, 3.0, 7.0, 15.0])
@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_the_guided_score_is_that_of_the_tilted_density(path: Path, w: float) -> None:
    """d/dx [(1 + w) log p_t(x | c) - w log p_t(x)], by differentiating the log-densities."""
    data = labelled(path)
    condition = data.select([1, 2])
    for time in (0.02, 0.1, 0.3, 0.5, 0.8, 0.99):
        t = f64(time).squeeze()
        x = points(path, t).requires_grad_()
        tilted = (1 + w) * condition.log_density(x, t) - w * data.log_density(x, t)
        (expected,) = torch.autograd.grad(tilted.sum(), x)
        x = x.detach()
        guided = score_of(path, cfg(stacked(condition, data), w)(x, t), x, t)
        scale = expected.abs().max()
        # x_t - alpha x0_hat loses digits where sigma is small (1e-4 of x on VE): relative to the largest.
        close(guided / scale, expected / scale, rtol=0, atol=1e-7)


@pytest.mark.parametrize("path", [LinearVP(), Straight()], ids=name)
def test_several_conditions_tilt_each_with_its_own_weight(path: Path) -> None:
    """d/dx [sum (1 + w_k) log p(x | c_k) - (sum (1 + w_k) - 1) log p(x)]."""
    data = labelled(path)
    conditions = data.select([0, 1]), data.select([1, 2, 3]), data.select([2])
    weights = (0.5, 2.0, -0.3)
    for time in (0.05, 0.4, 0.95):
        t = f64(time).squeeze()
        x = points(path, t).requires_grad_()
        tilted = -(sum(weights) + 2) * data.log_density(x, t)
        for w, condition in zip(weights, conditions, strict=True):
            tilted = tilted + (1 + w) * condition.log_density(x, t)
        (expected,) = torch.autograd.grad(tilted.sum(), x)
        x = x.detach()
        counted = Counted(stacked(*conditions, data))
        close(score_of(path, cfg(counted, weights)(x, t), x, t), expected, rtol=1e-8, atol=1e-8)
        assert counted.nfe == 1


class Network:
    """A float32 network with a learned null: rows of one condition mixed with others may differ in their last bits."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(67, 256), nn.SiLU(), nn.Linear(256, 64))
        self.condition, self.null = torch.randn(3, 2), torch.randn(1, 2).expand(3, 2)
        self.rows: list[int] = []

    def under(self, condition: Tensor) -> Denoiser:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            self.rows.append(len(x_t))
            time = t.reshape(-1, 1).expand(len(x_t), 1)
            return self.net(torch.cat([x_t, condition, time], dim=1))

        return denoise

    def blocks(self, k: int) -> Denoiser:
        return self.under((self.condition, self.null)[k])

    def guided(self, w: float, **options) -> Denoiser:
        return cfg(self.under(torch.cat([self.condition, self.null])), w, alone=self.blocks, **options)


X = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("w", "block"), [(0.0, 0), (-1.0, 1)])
def test_no_weight_is_the_conditional_and_minus_one_the_unconditional_bit_for_bit(w: float, block: int) -> None:
    network, path = Network(), Cosine()
    for time in (0.0, 0.1, 0.5, 1.0):
        t = torch.tensor(time)
        assert torch.equal(network.guided(w)(X, t), network.blocks(block)(X, t))
    assert set(network.rows) == {3}  # never the doubled batch
    tableau = ddim(path, Trailing().times(path, 6))
    assert torch.equal(run(network.guided(w), tableau, X), run(network.blocks(block), tableau, X))


@pytest.mark.parametrize("w", [0.0, -1.0])
def test_an_estimate_that_is_not_wanted_is_not_mixed_in(w: float) -> None:
    """0 times infinity is NaN: a block without a share is left out."""
    wanted = 0 if w == 0 else 1

    def many(x_t: Tensor, t: Tensor) -> Tensor:
        blocks = [torch.full_like(x_t[:3], torch.inf), torch.full_like(x_t[:3], torch.inf)]
        blocks[wanted] = x_t[:3]
        return torch.cat(blocks)

    assert torch.equal(cfg(many, w)(X, torch.tensor(0.5)), X)


def test_outside_its_interval_only_the_conditional_is_computed() -> None:
    network = Network()
    denoise = network.guided(4.0, interval=(0.25, 0.75))
    for time, inside in ((0.0, False), (0.2, False), (0.25, True), (0.5, True), (0.75, True), (0.8, False)):
        network.rows.clear()
        out = denoise(X, torch.tensor(time))
        assert network.rows == ([6] if inside else [3])
        plain = network.blocks(0)(X, torch.tensor(time))
        assert torch.equal(out, network.guided(4.0)(X, torch.tensor(time)) if inside else plain)


def test_an_interval_is_kept_by_each_row_of_its_own_time() -> None:
    data = labelled(LinearVP())
    many = stacked(data.select([1]), data)
    t = f64(0.1, 0.3, 0.5, 0.9, 0.2, 0.6)
    x = points(LinearVP(), f64(0.5).squeeze())
    counted = Counted(many)
    mixed = cfg(counted, 3.0, interval=(0.25, 0.6), rescale=0.5)(x, t)
    assert counted.nfe == 1
    for row, time in enumerate(t):
        w = 3.0 if 0.25 <= time <= 0.6 else 0.0
        alone = cfg(many, w, rescale=0.5)(x[row : row + 1], time)
        close(mixed[row : row + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rescale", [0.0, 0.3, 0.7, 1.0])
def test_rescaled_guidance_is_lins_written_out(rescale: float) -> None:
    """Lin et al. 2024, Eq. 15-16: `phi x_cfg std(pos) / std(cfg) + (1 - phi) x_cfg`, a sample at a time."""
    network, t = Network(), torch.tensor(0.4)
    w = 5.0
    plain, out = network.guided(w)(X, t), network.guided(w, rescale=rescale)(X, t)
    positive = network.blocks(0)(X, t)
    for guided, wanted, found in zip(plain, positive, out, strict=True):
        rescaled = guided * wanted.std() / guided.std()
        close(found, rescale * rescaled + (1 - rescale) * guided, rtol=1e-4, atol=1e-5)


def test_rescaled_guidance_of_a_constant_is_no_nan() -> None:
    def many(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.ones_like(x_t)

    for x in (X, X[:, :1], X[:, 0]):
        assert torch.equal(cfg(many, 2.0, rescale=0.7)(x, torch.tensor(0.5)), torch.ones_like(x))


@pytest.mark.parametrize(
    ("w", "options"),
    [
        (float("nan"), {}),
        (float("inf"), {}),
        ([], {}),
        ([1.0, float("nan")], {}),
        (1.0, {"rescale": 1.1}),
        (1.0, {"rescale": -0.1}),
        (1.0, {"rescale": float("nan")}),
        (1.0, {"interval": (0.5, 0.5)}),
        (1.0, {"interval": (-0.1, 0.5)}),
        (1.0, {"interval": (0.1, 1.5)}),
        (1.0, {"interval": (0.1, float("nan"))}),
    ],
)
def test_weights_and_options_out_of_range_are_refused(w, options) -> None:
    with pytest.raises(ConfigError, match="expected"):
        cfg(lambda x, t: x, w, **options)


def test_another_number_of_blocks_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected 3 stacked blocks"):
        cfg(lambda x, t: x[:6], [1.0, 2.0])(X, torch.tensor(0.5))


def linear(direction: Tensor):
    return lambda x0_hat: x0_hat @ direction


@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_a_linear_cost_on_gaussian_data_is_the_tilted_posterior(path: Path) -> None:
    """N(m, C) under exp(-s a.x0) is N(m - s C a, C): its exact denoiser is the one that descends."""
    mean, covariance = f64(0.4, -0.3), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    direction, scale = f64(0.7, -1.1), 1.8
    one = f64(1.0)
    data = Mixture(path, one, mean[None], covariance[None])
    tilted = Mixture(path, one, (mean - scale * covariance @ direction)[None], covariance[None])
    denoise = descend(data.denoise, linear(direction), path=path, scale=scale)
    for time in (0.02, 0.2, 0.5, 0.9, 0.99):
        t = f64(time).squeeze()
        x = points(path, t)
        close(denoise(x, t), tilted.denoise(x, t), rtol=1e-7, atol=1e-7)
    t = f64(0.1, 0.3, 0.5, 0.6, 0.8, 0.9)
    close(denoise(x, t), tilted.denoise(x, t), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", often(PATHS), ids=name)
def test_a_linear_cost_on_a_mixture_is_exact_to_first_order(path: Path) -> None:
    """The posterior mean under the tilt, component by component, against a small step down the cost."""
    data, direction = labelled(path), f64(0.7, -1.1)
    errors: list[float] = []
    t = f64(0.4).squeeze()
    x = points(path, t)
    for scale in (1e-2, 1e-3):
        # A Gaussian times exp(-s a.x): mean moved by -s C a, mass scaled by exp(-s a.m + s^2 a.C a / 2).
        pull = data.covariances @ direction
        mass = data.weights * (-scale * data.means @ direction + scale**2 / 2 * pull @ direction).exp()
        tilted = Mixture(path, mass / mass.sum(), data.means - scale * pull, data.covariances)
        descended = descend(data.denoise, linear(direction), path=path, scale=scale)(x, t)
        errors.append((descended - tilted.denoise(x, t)).abs().max().item())
    assert errors[1] < 1e-4
    assert errors[1] < 0.02 * errors[0]  # second order in the scale


def test_descending_leaves_pure_noise_and_data_alone() -> None:
    for path in (Straight(), Cosine()):
        data = labelled(path)
        denoise = descend(data.denoise, linear(f64(1.0, 2.0)), path=path, scale=5.0)
        for time in (0.0, 1.0):
            t = f64(time).squeeze()
            x = points(path, f64(0.5).squeeze())
            assert torch.equal(denoise(x, t), data.denoise(x, t))


def test_descending_works_without_gradients_and_lowers_the_cost() -> None:
    """The mean of a Gaussian sample moves by -s C a, through a whole sampling run under no_grad."""
    path = LinearVP()
    data = Mixture.gaussian(path, [0.0, 0.0], std=0.5)
    wall = descend(data.denoise, linear(f64(1.0, 0.0)), path=path, scale=2.0)
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        sample = run(wall, ddim(path, Trailing().times(path, 60)), x)
    assert not sample.requires_grad
    assert not x.requires_grad
    assert sample.mean(0)[0].item() == pytest.approx(-0.5, abs=0.03)
    assert sample.mean(0)[1].item() == pytest.approx(0.0, abs=0.03)


def test_descending_leaves_no_gradient_on_the_network() -> None:
    net = nn.Linear(2, 2)
    descend(lambda x, t: net(x), lambda x: (x**2).sum(1), path=Cosine())(torch.randn(3, 2), torch.tensor(0.5))
    assert net.weight.grad is None


def test_guidance_composes_with_descent_and_clipping() -> None:
    path = Cosine()
    data = labelled(path)
    guided = cfg(stacked(data.select([1]), data), 2.0)
    t = f64(0.5).squeeze()
    x = points(path, t)
    cost = linear(f64(1.0, -1.0))
    both = clip(descend(guided, cost, path=path, scale=0.5), -1.0, 1.0)(x, t)
    assert torch.equal(both, descend(guided, cost, path=path, scale=0.5)(x, t).clamp(-1, 1))


def test_costs_that_cannot_be_descended_are_refused() -> None:
    data, t = labelled(Cosine()), f64(0.5).squeeze()
    x = points(Cosine(), t)
    with pytest.raises(ShapeError, match=r"expected a cost a sample \[6\], got \[\]: sum over each sample"):
        descend(data.denoise, lambda x0: x0.sum(), path=Cosine())(x, t)
    with pytest.raises(ShapeError, match=r"got \[6, 2\]"):
        descend(data.denoise, lambda x0: x0**2, path=Cosine())(x, t)
    with pytest.raises(ConfigError, match="without gradient: use torch functions"):
        descend(data.denoise, lambda x0: x0.detach().sum(1), path=Cosine())(x, t)
