import pytest
import torch

from noise2action.encoders.pooling import AveragePoolConfig, SpatialSoftmaxConfig, coordinates
from noise2action.errors import ConfigError

close = torch.testing.assert_close


def softmax_of(size: tuple[int, int], **options):
    """Spatial softmax whose keypoints are the channels themselves."""
    pool = SpatialSoftmaxConfig(keypoints=3, **options).build(channels=3, size=size)
    torch.nn.init.dirac_(pool.nets.weight)
    torch.nn.init.zeros_(pool.nets.bias)
    return pool


def written_out(features, temperature):
    """sum_p softmax_p(f / temperature) (x_p, y_p), one place at a time."""
    n, k, h, w = features.shape
    found = torch.zeros(n, k, 2, dtype=torch.float64)
    weights = (features.double() / temperature).exp()
    for i in range(h):
        for j in range(w):
            place = torch.tensor([2 * j / (w - 1) - 1, 2 * i / (h - 1) - 1], dtype=torch.float64)
            found += (weights[:, :, i, j] / weights.sum((2, 3)))[..., None] * place
    return found.flatten(1).float()


@pytest.mark.parametrize("learn", ["nothing", "temperature"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_it_is_the_formula_written_out(learn, temperature):
    pool = SpatialSoftmaxConfig(keypoints=4, temperature=temperature, learn=learn).build(channels=5, size=(3, 6))
    maps = torch.randn(2, 5, 3, 6)
    features = torch.einsum("kc,nchw->nkhw", pool.nets.weight[:, :, 0, 0], maps) + pool.nets.bias[:, None, None]
    close(pool(maps), written_out(features, temperature))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (4, 2), (2, 6), (1, 3)])
def test_a_one_hot_map_gives_the_coordinates_of_its_pixel(row, column):
    maps = torch.zeros(1, 3, 5, 7)
    maps[:, :, row, column] = 200.0
    close(softmax_of((5, 7))(maps), torch.tensor([[column / 3 - 1, row / 2 - 1] * 3]))


def test_a_flat_map_gives_the_centre_and_a_low_temperature_the_maximum():
    close(softmax_of((5, 7))(torch.ones(1, 3, 5, 7)), torch.zeros(1, 6))
    maps = torch.zeros(1, 3, 5, 7)
    maps[:, :, 1, 6] = 1.0
    close(softmax_of((5, 7), temperature=0.01)(maps), torch.tensor([[1, -0.5] * 3]))


def test_its_temperature_is_learned_where_asked():
    assert not any("temperature" in name for name, _ in softmax_of((5, 7)).named_parameters())
    pool = softmax_of((5, 7), learn="temperature")
    pool(torch.randn(2, 3, 5, 7)).square().sum().backward()
    assert pool.log_temperature.grad.abs() > 0


def test_weights_serve_maps_of_any_size():
    maps = torch.randn(1, 3, 4, 9)
    assert torch.equal(softmax_of((5, 7))(maps), softmax_of((4, 9))(maps))


def test_mirrored_maps_have_mirrored_keypoints():
    pool, maps = softmax_of((5, 7)), torch.randn(2, 3, 5, 7)
    close(pool(maps.flip(3)), pool(maps) * torch.tensor([-1.0, 1.0]).repeat(3))


def test_the_grid_goes_row_by_row_with_x_first():
    assert coordinates((2, 3)).tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]


def test_the_average_is_the_mean_over_places():
    maps = torch.randn(2, 3, 5, 7)
    close(AveragePoolConfig().build(channels=3, size=(5, 7))(maps), maps.flatten(2).sum(2) / 35)


@pytest.mark.parametrize("options", [{"keypoints": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected keypoints"):
        SpatialSoftmaxConfig(**options)
