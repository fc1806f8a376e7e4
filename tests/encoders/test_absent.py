import pytest
import torch
from observed import AIM, LEFT, SAID, STATE, O, built, seen

from noise2action.encoders.image import CropRatio, CropSize
from noise2action.errors import ConfigError, SchemaError
from noise2action.schema import Feature
from noise2action.seeds import generator

close = torch.testing.assert_close


@pytest.mark.parametrize("name", ["left", "state", "small", "aim", "said", "look"])
@pytest.mark.parametrize("tokens", ["pooled", "cells"])
def test_what_is_absent_has_exactly_no_influence_beyond_its_null(name, tokens):
    encoder = built(modality_dropout=0.5, token_dim=8, image_tokens=tokens)
    x, y = seen(), seen(seed=1)
    y["said"] = 1 - x["said"]
    hidden = {name: torch.tensor([True, False, True])}
    names = [f.name for f in STATE] if name == "state" else [name]
    other = encoder(x | {n: y[n] for n in names}, absent=hidden)
    mine = encoder(x, absent=hidden)
    present = encoder(x)
    for n in (0, 2):
        assert torch.equal(mine.vector[n], other.vector[n])
        assert torch.equal(mine.tokens[n], other.tokens[n])
        assert torch.equal(mine.mask[n], other.mask[n])
        assert not torch.equal(mine.vector[n], present.vector[n])
    assert not torch.equal(mine.vector[1], other.vector[1])
    assert torch.equal(mine.vector[1], present.vector[1])
    assert torch.equal(mine.tokens[1], present.tokens[1])
    assert present.mask.all()
    # A missing key is the same as hidden from all samples, and every sample is then alike where it would be.
    missing = encoder({key: value for key, value in x.items() if key not in names})
    everywhere = encoder(x, absent={name: torch.ones(3, dtype=torch.bool)})
    for part in ("vector", "tokens", "mask"):
        assert torch.equal(getattr(missing, part), getattr(everywhere, part))
    changed = missing.vector != present.vector
    assert (missing.vector[:, changed.any(0)] == missing.vector[:1, changed.any(0)]).all()
    slot = next(s for s in encoder.slots if s.part.name == name)
    assert changed.any(0).sum() <= slot.null.numel()
    assert (~missing.mask).sum() == 3 * (slot.part.cells - 1)


def test_hiding_from_a_condition_is_encoding_it_absent():
    """A guided plan so encodes its observation once."""
    encoder, x = built(modality_dropout=0.5, token_dim=8, image_tokens="cells"), seen()
    condition = encoder(x)
    for names in (["said"], ["left", "look"], ["state", "said"], list(encoder.modalities)):
        absent = {name: torch.tensor([True, False, True]) for name in names}
        mine, want = encoder.hide(condition, absent), encoder(x, absent=absent)
        for part in ("vector", "tokens", "mask"):
            assert torch.equal(getattr(mine, part), getattr(want, part))
    one, both = {"said": torch.ones(3, dtype=torch.bool)}, {"left": torch.ones(3, dtype=torch.bool)}
    twice, once = encoder.hide(encoder.hide(condition, one), both), encoder.hide(condition, one | both)
    for part in ("vector", "tokens", "mask"):
        assert torch.equal(getattr(twice, part), getattr(once, part))


def test_everything_may_be_absent_but_one_and_the_rest_are_nulls():
    encoder = built(modality_dropout=0.5)
    x = {"said": seen()["said"]}
    assert torch.equal(encoder(x).vector[0, :32], encoder(x).vector[1, :32])
    with pytest.raises(SchemaError, match="expected one of"):
        encoder({})


def test_nulls_exist_only_for_what_may_be_dropped():
    assert not [n for n, _ in built(token_dim=8).named_parameters() if "null" in n]
    some = built(modality_dropout=0.1, droppable=("left", "said"), token_dim=8)
    nulls = [n for n, _ in some.named_parameters() if "null" in n]
    assert nulls == ["slots.0.null", "slots.0.null_token", "slots.4.null", "slots.4.null_token"]
    assert some.droppable == ("left", "said")


def test_dropout_hides_each_modality_independently_at_its_rate_in_training_only():
    features = (*STATE, AIM, SAID)
    encoder = built(features, modality_dropout=0.3)
    x = {key: value.expand(4000, *value.shape[1:]) for key, value in seen(features, batch=1).items()}
    kept = encoder(x).vector
    assert (kept == kept[:1]).all()
    vector = encoder.train()(x, generator=generator(0)).vector
    hidden = torch.stack([(vector[:, column] != kept[:, column]) for column in (0, 8, 10)], dim=1).double()
    close(hidden.mean(0), torch.full((3,), 0.3, dtype=torch.float64), rtol=0, atol=5 * (0.21 / 4000) ** 0.5)
    assert torch.corrcoef(hidden.T).fill_diagonal_(0.0).abs().max() < 5 / 4000**0.5
    again = encoder(x, generator=generator(0)).vector
    assert torch.equal(vector, again)


def test_nulls_learn_and_what_is_hidden_does_not():
    encoder = built(modality_dropout=0.5)
    encoder(seen(), absent={"left": torch.tensor([True, True, True])}).vector.sum().backward()
    camera = encoder.slots[0]
    close(camera.null.grad, torch.full((O, 6), 3.0))
    look = encoder.slots[5]
    assert look.null.grad is None or not look.null.grad.any()


def test_random_crops_are_for_training_and_follow_the_generator():
    encoder, x = built((LEFT,), crop=CropSize(8, 8)), seen((LEFT,))
    whole = built((Feature("left", (8, 8, 3), kind="image", dtype="uint8"),))
    whole.load_state_dict(encoder.state_dict())
    centre = whole({"left": x["left"][:, :, 4:12, 2:10]}).vector
    assert torch.equal(encoder(x).vector, centre)
    assert torch.equal(encoder(x, generator=generator(0)).vector, centre)
    encoder.train()
    one, same, other = (encoder(x, generator=generator(seed)).vector for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    for options in ({"crop": CropRatio(0.5)}, {"modality_dropout": 0.1}):
        with pytest.raises(ConfigError, match="expected a generator to train"):
            built((LEFT,), **options).train()(x)
