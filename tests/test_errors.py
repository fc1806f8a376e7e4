import pickle
import re

import pytest

from noise2action import errors
from noise2action.diffusion.grids import Karras, LogSNR
from noise2action.diffusion.samplers import Adaptive
from noise2action.encoders.resnet import ResNetConfig
from noise2action.errors import MissingExtraError, Noise2ActionError, did_you_mean
from noise2action.nets import MLPConfig, PointMLPConfig
from noise2action.recipes.experiment import DataConfig, EvaluateConfig
from noise2action.train.ema import PowerEMA

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Noise2ActionError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_the_way_from_a_worker_process(kind):
    error = MissingExtraError("PyAV", "report") if kind is MissingExtraError else kind("expected this, got that")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.exit_code) == (type(error), str(error), error.exit_code)


def test_a_missing_package_names_the_extra_to_install():
    assert "pip install 'noise2action[report]'" in str(MissingExtraError("PyAV", "report"))


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (
            lambda: ResNetConfig(widths=(1_000_000, 1_000_000), blocks=(1, 1), strides=(1, 2)),
            "got widths=(1000000, 1000000)",
        ),
        (lambda: ResNetConfig(dim=0), "got dim=0"),
        (lambda: MLPConfig(condition_width=70_000), "got condition_width=70000"),
        (lambda: PointMLPConfig(time_dim=5), "got time_dim=5"),
        (lambda: DataConfig(held_out=1.5), "got held_out=1.5"),
        (lambda: EvaluateConfig(workers=300), "got workers=300"),
        (lambda: PowerEMA(power=0.0), "got power=0.0"),
        (lambda: Adaptive(atol=1.0), "got atol=1.0"),
        (lambda: LogSNR(low=2.0, high=1.0), "got 2, 1 and 1"),
        (lambda: Karras(sigma_min=0.0), "got 0, "),
    ],
)
def test_a_number_out_of_range_is_named_and_nothing_else(make, got):
    with pytest.raises(Noise2ActionError) as told:
        make()
    assert got in str(told.value)
    assert not re.search(r"got \w+\(", str(told.value))


def test_close_names_are_suggested_and_others_are_not():
    assert "did you mean 'cosine'?" in did_you_mean("cosin", ["cosine", "straight"])
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("--hide", ["--episodes", "--seed"]) == "known: --episodes, --seed"
    assert "did you mean '--episodes'?" in did_you_mean("--episode", ["--episodes", "--seed"])
    assert did_you_mean("zzz", []) == "known: none"
