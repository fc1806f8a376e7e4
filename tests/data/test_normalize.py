import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import load, save

from noise2action.data.normalize import KINDS, Affine, Normalizer
from noise2action.errors import CheckpointError, DataError, SchemaError, ShapeError

numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
columns = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=8), elements=numbers)


@pytest.mark.parametrize("kind", KINDS)
@given(x=columns)
def test_decode_inverts_encode(kind, x):
    normalizer = Normalizer.fit({"x": x}, {"x": kind})
    tensor = torch.from_numpy(x)
    again = normalizer.decode("x", normalizer.encode("x", tensor))
    magnitude = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
    assert again.dtype == torch.float32
    assert (np.abs(again.numpy() - x) <= 4 * np.finfo(np.float32).eps * magnitude).all()


@pytest.fixture
def data():
    return np.random.default_rng(0).normal([3.0, -2e5, 0.01], [2.0, 50.0, 1e-3], size=(400, 3))


def encoded(data, kind):
    return Normalizer.fit({"x": data}, {"x": kind}).encode("x", torch.from_numpy(data)).numpy()


def test_each_kind_does_what_it_says(data):
    limits = encoded(data, "limits")
    assert np.allclose([limits.min(axis=0), limits.max(axis=0)], [[-1] * 3, [1] * 3], atol=1e-9)
    gaussian = encoded(data, "gaussian")
    assert np.allclose([gaussian.mean(axis=0), gaussian.std(axis=0)], [[0] * 3, [1] * 3], atol=1e-9)
    quantile = encoded(data, "quantile")
    assert np.allclose(np.quantile(quantile, [0.01, 0.99], axis=0), [[-1] * 3, [1] * 3], atol=1e-9)
    assert quantile.max() > 1.1  # not clipped
    assert np.array_equal(encoded(data, "identity"), data)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "identity"])
@given(value=numbers, noise=st.floats(-3, 3, width=32))
def test_a_constant_column_becomes_zero_and_comes_back_exactly(kind, value, noise):
    x = np.column_stack([np.full(5, value, np.float32), np.arange(5, dtype=np.float32)])
    normalizer = Normalizer.fit({"x": x}, {"x": kind})
    y = normalizer.encode("x", torch.from_numpy(x))
    assert (y[:, 0] == 0).all()
    assert (normalizer.decode("x", y)[:, 0] == float(np.float32(value))).all()
    # What a network says about it is neither amplified nor lost.
    assert normalizer.decode("x", torch.tensor([[noise, 0.0]]))[0, 0].item() == np.float32(np.float32(noise) + x[0, 0])


def test_a_column_with_rare_spikes_is_scaled_by_them():
    x = np.zeros((1000, 1))
    x[7] = 5.0
    assert encoded(x, "quantile").tolist() == encoded(x, "limits").tolist()


def test_narrow_columns_far_from_zero_keep_their_digits():
    x = (1e6 + np.arange(64) / 8).astype(np.float32)[:, None]
    normalizer = Normalizer.fit({"x": x}, {"x": "limits"})
    exact = (x.astype(np.float64) - 1e6) / (63 / 16) - 1
    assert np.abs(normalizer.encode("x", torch.from_numpy(x)).numpy() - exact).max() < 1e-6


def test_statistics_run_over_all_but_the_last_axis():
    points = np.random.default_rng(0).normal(size=(50, 9, 2))
    whole = Normalizer.fit({"x": points}, {"x": "limits"}).affines["x"]
    flat = Normalizer.fit({"x": points.reshape(-1, 2)}, {"x": "limits"}).affines["x"]
    assert torch.equal(whole.scale, flat.scale)
    assert torch.equal(whole.offset, flat.offset)


def test_state_survives_safetensors_bit_for_bit(data):
    normalizer = Normalizer.fit({f"a.{k}": data for k in KINDS}, {f"a.{k}": k for k in KINDS})
    again = Normalizer.from_state(load(save(normalizer.state())), [f"a.{k}" for k in KINDS])
    x = torch.from_numpy(data).float()
    for name, affine in normalizer.affines.items():
        assert again.affines[name].kind == affine.kind
        assert torch.equal(again.encode(name, x), normalizer.encode(name, x))
        # The formula that foreign checkpoints use.
        formula = x.double() * affine.scale + affine.offset
        assert torch.allclose(again.encode(name, x.double()), formula, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("x.scale"), "expected exactly"),
        (lambda s: s.pop("x.kind"), "expected exactly"),
        (lambda s: s.update({"x.extra": torch.zeros(3)}), "expected exactly"),
        (lambda s: s.update({"loose": torch.zeros(3)}), "expected exactly"),
        (lambda s: s["x.scale"].__setitem__(0, 0), "non-zero"),
        (lambda s: s["x.scale"].__setitem__(0, torch.nan), "finite"),
        (lambda s: s["x.offset"].__setitem__(0, torch.inf), "finite"),
        (lambda s: s.update({"x.offset": torch.zeros(2, dtype=torch.float64)}), "scale and offset"),
        (lambda s: s.update({"x.scale": torch.ones(3)}), "float64"),
        (lambda s: s.update({"x.kind": torch.tensor(9)}), "kind"),
        (lambda s: s.update({"x.kind": torch.tensor(0.5)}), "kind"),
    ],
)
def test_damaged_states_are_refused(data, change, message):
    state = Normalizer.fit({"x": data}, {"x": "limits"}).state()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        Normalizer.from_state(state)


def test_a_state_of_other_features_is_refused(data):
    state = Normalizer.fit({"x": data}, {"x": "limits"}).state()
    with pytest.raises(CheckpointError, match=r"exactly \['x', 'y'\]"):
        Normalizer.from_state(state, ["x", "y"])


def test_errors_name_the_feature(data):
    normalizer = Normalizer.fit({"state": data}, {"state": "limits"})
    with pytest.raises(SchemaError, match="did you mean 'state'"):
        normalizer.encode("stat", torch.zeros(3))
    with pytest.raises(ShapeError, match="'state': expected a last axis of 3"):
        normalizer.decode("state", torch.zeros(4, 2))
    with pytest.raises(DataError, match="missing"):
        Normalizer.fit({"state": data}, {"missing": "limits"})
    with pytest.raises(DataError, match="'state': expected finite"):
        Normalizer.fit({"state": np.array([[1.0], [np.nan]])}, {"state": "gaussian"})
    with pytest.raises(DataError, match="non-zero"):
        Normalizer({"x": Affine("limits", torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))})
