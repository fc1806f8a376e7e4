import sys

import pytest
import torch
from sklearn.datasets import load_digits

from noise2action.data.digits import CLASSES, digits
from noise2action.errors import ConfigError, MissingExtraError


def rows(images):
    """Return the images with their labels as sorted rows of whole grey levels."""
    levels = (images.x.flatten(1) + 1) * 8
    assert torch.equal(levels, levels.round())
    return sorted([*row, label] for row, label in zip(levels.long().tolist(), images.labels.tolist(), strict=True))


def test_the_parts_together_are_the_data_set_to_the_grey_level():
    pixels, labels = load_digits(return_X_y=True)
    training, held_out = digits(held_out=0.3, seed=1)
    expected = sorted([*map(int, row), int(label)] for row, label in zip(pixels, labels, strict=True))
    assert sorted(rows(training) + rows(held_out)) == expected
    assert float(training.x.min()) == -1.0
    assert float(training.x.max()) == 1.0


def test_every_class_gives_its_share():
    training, held_out = digits(held_out=0.2)
    for digit in range(CLASSES):
        mine, theirs = int((held_out.labels == digit).sum()), int((training.labels == digit).sum())
        assert mine == round(0.2 * (mine + theirs))


def test_the_split_is_a_function_of_the_seed():
    one, again, other = (digits(seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.labels, again.labels)
    assert rows(one) != rows(other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_a_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ConfigError, match="expected held_out"):
        digits(held_out=fraction)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"noise2action\[images\]"):
        digits()
