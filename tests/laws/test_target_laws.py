"""Laws of every target on every path: exact conversion, and a typed error where there is nothing to decode."""

import pytest
import torch
from exact import PATHS, SMOOTH, TARGETS, inner_times, name

from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import VE, Cosine, LinearVP, Path, Straight, SubVP, Table
from noise2action.diffusion.targets import EDM, Clean, Epsilon, Score, Target, V, Velocity
from noise2action.errors import PathError

close = torch.testing.assert_close


PAIRS = [pytest.param(p, t, id=f"{name(p)}-{name(t)}") for p in PATHS for t in TARGETS]


def noised(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (t, x0, eps, x_t) with one row a time."""
    t = inner_times(path)
    x0, eps = torch.randn(2, len(t), 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return t, x0, eps, path.noised(x0, t, eps)


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_round_trip(path: Path, target: Target) -> None:
    t, x0, eps, x_t = noised(path)
    y = target.encode(path, t, x0, eps)
    # Worst conditioning in these times: alpha = 0.01 (LinearVP) and sigma = 50 (VE), so 1e-16 grows to 1e-13.
    close(target.decode(path, t, x_t, y), x0, rtol=0, atol=1e-10)
    close(target.decode_noise(path, t, x_t, y), eps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("target", TARGETS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_every_target_converts_to_every_other(path: Path, target: Target) -> None:
    t, x0, eps, x_t = noised(path)
    y = target.encode(path, t, x0, eps)
    x0_hat, eps_hat = target.decode(path, t, x_t, y), target.decode_noise(path, t, x_t, y)
    for other in TARGETS:
        direct = other.encode(path, t, x0, eps)
        # Relative to the row's coefficients: a velocity on VE is some 1e3.
        scale = torch.stack([c.abs() for c in other.row(path, t)]).amax(0).clamp(min=1).unsqueeze(1)
        close(other.encode(path, t, x0_hat, eps_hat) / scale, direct / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_times_broadcast_alike(path: Path, target: Target) -> None:
    generator = torch.Generator().manual_seed(4)
    x0, eps = torch.randn(2, 3, 4, 2, generator=generator, dtype=torch.float64)
    t = path.snap(0.1 + 0.8 * torch.rand(3, 4, generator=generator, dtype=torch.float64))
    x_t = path.noised(x0, t, eps)
    y = target.encode(path, t, x0, eps)
    close(target.decode(path, t, x_t, y), x0, rtol=0, atol=1e-10)
    for h in range(4):
        close(target.encode(path, t[:, h], x0[:, h], eps[:, h]), y[:, h], rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(("path", "target"), PAIRS)
def test_input_scale_gives_unit_variance(path: Path, target: Target) -> None:
    t = inner_times(path)
    data_variance = target.data_std**2 if isinstance(target, EDM) else 1.0
    variance = path.alpha(t) ** 2 * data_variance + path.sigma(t) ** 2
    close(target.input_scale(path, t) ** 2 * variance, torch.ones_like(t), rtol=1e-13, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_definitions_written_out(path: Path) -> None:
    t, x0, eps, _ = noised(path)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    assert torch.equal(Epsilon().encode(path, t, x0, eps), eps)
    assert torch.equal(Clean().encode(path, t, x0, eps), x0)
    close(V().encode(path, t, x0, eps), alpha * eps - sigma * x0, rtol=1e-14, atol=1e-14)
    close(Score().encode(path, t, x0, eps), -eps / sigma, rtol=1e-14, atol=0)


def test_velocity_on_straight_is_noise_minus_data() -> None:
    _, x0, eps, _ = noised(Straight())
    t = torch.linspace(0, 1, len(x0), dtype=torch.float64)  # both ends included
    assert torch.equal(Velocity().encode(Straight(), t, x0, eps), eps - x0)


@pytest.mark.parametrize("path", SMOOTH, ids=name)
def test_velocity_is_the_derivative_of_x_t(path: Path) -> None:
    t, x0, eps, _ = noised(path)
    h = 1e-5
    slope = (path.noised(x0, t + h, eps) - path.noised(x0, t - h, eps)) / (2 * h)
    close(Velocity().encode(path, t, x0, eps), slope, rtol=1e-6, atol=1e-7)


def test_v_on_the_circle_is_the_angular_velocity() -> None:
    """Salimans & Ho, appendix D: on alpha = cos, sigma = sin, v is d x / d angle, and x0 = alpha x_t - sigma v."""
    path = Cosine()
    t, x0, eps, x_t = noised(path)
    v = V().encode(path, t, x0, eps)
    close(Velocity().encode(path, t, x0, eps), v * torch.pi / 2, rtol=1e-12, atol=1e-12)
    close(V().decode(path, t, x_t, v), path.alpha(t)[:, None] * x_t - path.sigma(t)[:, None] * v, rtol=0, atol=1e-13)


@pytest.mark.parametrize("data_std", [0.5, 1.7])
def test_edm_is_karras_preconditioning(data_std: float) -> None:
    """`D = c_skip x + c_out F(c_in x)` with table 1's coefficients, sigma_data = s, on alpha = 1."""
    path, target = VE(), EDM(data_std=data_std)
    t, x0, eps, x_t = noised(path)
    sigma = path.sigma(t)[:, None]
    c_skip = data_std**2 / (sigma**2 + data_std**2)
    c_out = sigma * data_std / (sigma**2 + data_std**2).sqrt()
    c_in = 1 / (sigma**2 + data_std**2).sqrt()
    y = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    close(target.decode(path, t, x_t, y), c_skip * x_t + c_out * y, rtol=1e-12, atol=1e-12)
    close(target.input_scale(path, t)[:, None], c_in, rtol=1e-14, atol=0)
    # Equation 8's training target, with y = x0 and n = sigma eps.
    close(target.encode(path, t, x0, eps), (x0 - c_skip * x_t) / c_out, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_edm_target_has_unit_variance(path: Path) -> None:
    p, q = EDM(data_std=0.5).row(path, inner_times(path))
    close((p * 0.5) ** 2 + q**2, torch.ones_like(p), rtol=1e-13, atol=0)


def singular(path: Path, target: Target) -> str | None:
    """Return the remedy that the error must name, where a target cannot be used on the whole of [0, 1]."""
    if isinstance(target, Velocity) and (isinstance(path, VE) or type(path) is LinearVP):
        return "span that ends at t>0"  # sigma ~ sqrt(t)
    if isinstance(target, Epsilon | Score) and path.ends()[0] == 0:
        return "use target=v or target=velocity"  # alpha(1) = 0
    if isinstance(target, Score) and not isinstance(path, Table):  # a table is never trained at t = 0
        return "use another target, or a span that ends at t>0"  # sigma(0) = 0
    return None


@pytest.mark.parametrize("target", TARGETS, ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_singular_pair_raises_at_construction_with_the_remedy(path: Path, target: Target) -> None:
    remedy = singular(path, target)
    if remedy is None:
        Diffusion(path=path, target=target)
        return
    with pytest.raises(PathError, match=remedy) as error:
        Diffusion(path=path, target=target)
    assert type(path).__name__ in str(error.value)
    assert type(target).__name__ in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "target", "span"),
    [
        (Straight(), Epsilon(), (0.0, 0.99)),
        (Cosine(), Epsilon(), (0.0, 0.99)),
        (Straight(), Score(), (0.01, 0.99)),
        (VE(), Score(), (1e-4, 1.0)),
        (LinearVP(), Score(), (1e-3, 1.0)),
        (LinearVP(), Velocity(), (1e-3, 1.0)),
        (VE(), Velocity(), (1e-3, 1.0)),
        (SubVP(), Velocity(), (0.0, 1.0)),
        (Table(), Score(), (0.01, 1.0)),
        (Table(), Velocity(), (0.01, 1.0)),
    ],
    ids=name,
)
def test_a_shorter_span_is_the_remedy(path: Path, target: Target, span: tuple[float, float]) -> None:
    diffusion = Diffusion(path=path, target=target, span=span)
    for t in torch.tensor(span, dtype=torch.float64):
        x0, eps = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        y = diffusion.target.encode(path, t, x0, eps)
        assert bool(y.isfinite().all())
        close(diffusion.target.decode(path, t, path.noised(x0, t, eps), y), x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_clean_is_decoded_at_both_ends(path: Path) -> None:
    y = torch.randn(2, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    for t in torch.tensor([0.0, 1.0], dtype=torch.float64):
        assert torch.equal(Clean().decode(path, t, 100 * y, y), y)


@pytest.mark.parametrize("data_std", [0.0, -1.0, float("nan")])
def test_edm_rejects_a_scale_that_is_not_positive(data_std: float) -> None:
    with pytest.raises(PathError, match="expected data_std > 0"):
        EDM(data_std=data_std)
