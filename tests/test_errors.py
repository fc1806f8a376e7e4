import pickle

import pytest

from noise2action import errors
from noise2action.errors import MissingExtraError, Noise2ActionError, did_you_mean

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Noise2ActionError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_the_way_from_a_worker_process(kind):
    error = MissingExtraError("PyAV", "report") if kind is MissingExtraError else kind("expected this, got that")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), found.exit_code) == (type(error), str(error), error.exit_code)


def test_a_missing_package_names_the_extra_to_install():
    assert "pip install 'noise2action[report]'" in str(MissingExtraError("PyAV", "report"))


def test_close_names_are_suggested_and_others_are_not():
    assert "did you mean 'cosine'?" in did_you_mean("cosin", ["cosine", "straight"])
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("--hide", ["--episodes", "--seed"]) == "known: --episodes, --seed"
    assert "did you mean '--episodes'?" in did_you_mean("--episode", ["--episodes", "--seed"])
    assert did_you_mean("zzz", []) == "known: none"
