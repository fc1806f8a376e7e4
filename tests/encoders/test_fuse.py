import json
import sys
from dataclasses import replace

import pytest
import torch
from observed import AIM, LEFT, LOOK, RIGHT, SAID, SMALL, STATE, TEXT, O, built, config, pixels, seen
from safetensors.torch import save_file

from noise2action.config import decode, encode
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.image import CropEach, CropRatio, CropSize
from noise2action.encoders.pretrained import torchvision_state
from noise2action.encoders.resnet import ResNetConfig, StandardResNetConfig
from noise2action.encoders.state import StateEncoder
from noise2action.encoders.text import SentenceModelConfig
from noise2action.encoders.vit import ViTConfig
from noise2action.errors import ConfigError, SchemaError, ShapeError
from noise2action.schema import Feature

close = torch.testing.assert_close


def test_a_state_alone_is_todays_state_encoder_to_the_last_bit():
    encoder, plain, x = EncoderConfig().build(STATE, O), StateEncoder(STATE, obs_steps=O), seen(STATE)
    assert not encoder.state_dict()
    assert (encoder.dim, encoder.token_dim) == (plain.dim, plain.token_dim)
    mine, its = encoder(x), plain(x)
    assert torch.equal(mine.vector, its.vector)
    assert torch.equal(mine.tokens, its.tokens)
    assert mine.mask is None


def test_tokens_of_a_state_are_its_steps_and_say_which():
    encoder, x = StateEncoder(STATE, obs_steps=O), seen(STATE)
    tokens = encoder(x).tokens
    assert tokens.shape[2] == encoder.token_dim
    assert torch.equal(tokens[..., :4].flatten(1), encoder(x).vector)
    assert torch.equal(tokens[..., 4:], torch.eye(2).expand(3, -1, -1))
    one = StateEncoder(STATE, obs_steps=1)
    assert one.token_dim == 4


def test_the_vector_is_every_step_in_the_schemas_order_and_then_what_counts_once():
    encoder, x = built(), seen()
    left, small, text = encoder.visions[0], encoder.visions[1], encoder.slots[4].part
    state = StateEncoder(STATE, obs_steps=O).steps(x)
    cameras = [net(pixels(x[f.name], f)).vector.unflatten(0, (3, O)) for net, f in ((left, LEFT), (small, SMALL))]
    steps = torch.cat([cameras[0], state, cameras[1]], dim=2).flatten(1)
    told = 4 * text.table[x["said"][:, -1, 0]] @ text.out.weight.T + text.out.bias
    look = left(pixels(x["look"][:, -1:], LOOK)).vector
    assert encoder.modalities == ("left", "state", "small", "aim", "said", "look")
    assert encoder.dim == O * (6 + 4 + 6) + 2 + 3 + 6
    close(encoder(x).vector, torch.cat([steps, x["aim"][:, -1], told, look], dim=1))


def test_the_mlp_of_proprioception_is_the_formula_written_out():
    encoder, x = built(STATE, proprioception=(5, 7)), seen(STATE)
    first, _, second, _ = encoder.slots[0].part.mlp
    h = torch.nn.functional.silu(StateEncoder(STATE, obs_steps=O).steps(x) @ first.weight.T + first.bias)
    h = torch.nn.functional.silu(h @ second.weight.T + second.bias)
    close(encoder(x).vector, h.flatten(1))


@pytest.mark.parametrize("tokens", ["pooled", "cells"])
def test_tokens_are_projected_and_told_their_place(tokens):
    encoder, x = built((LEFT, *STATE, AIM), token_dim=8, image_tokens=tokens), seen((LEFT, *STATE, AIM))
    camera, state, aim = encoder.slots
    images = encoder.visions[0](pixels(x["left"], LEFT))
    cells = images.cells if tokens == "cells" else images.vector[:, None]
    assert cells.shape[1] == (4 * 3 if tokens == "cells" else 1)

    def told(slot, cells):
        return cells @ slot.tokens.weight.T + slot.tokens.bias + slot.places

    want = [
        told(camera, cells.reshape(3, -1, cells.shape[2])),
        told(state, StateEncoder(STATE, obs_steps=O).steps(x)),
        told(aim, x["aim"][:, -1:]),
    ]
    close(encoder(x).tokens, torch.cat(want, dim=1))
    assert encoder.token_dim == 8
    assert encoder(x).mask is None


def test_shared_weights_share_gradients():
    features = (LEFT, RIGHT, SMALL)
    shared, separate, x = built(features, cameras="shared"), built(features), seen(features)
    assert (len(shared.visions), len(separate.visions)) == (1, 3)
    for vision in separate.visions:
        vision.load_state_dict(shared.visions[0].state_dict())
    assert torch.equal(shared(x).vector, separate(x).vector)
    for encoder in (shared, separate):
        encoder(x).vector.square().sum().backward()
    for one, *many in zip(*(v.parameters() for v in (*shared.visions, *separate.visions)), strict=True):
        close(one.grad, sum(p.grad for p in many), rtol=1e-4, atol=1e-4)


def test_cameras_that_share_weights_swap_with_their_images_and_others_do_not():
    features, both = (LEFT, RIGHT), seen((LEFT, RIGHT))
    swapped = {"left": both["right"], "right": both["left"]}
    halves = {
        cameras: [built(features, cameras=cameras)(x).vector.reshape(3, O, 2, 6) for x in (both, swapped)]
        for cameras in ("shared", "separate")
    }
    one, other = halves["shared"]
    close(one.flip(2), other)
    one, other = halves["separate"]
    assert not torch.allclose(one.flip(2), other)


@pytest.mark.parametrize("goal_images", ["shared", "own"])
def test_a_goal_image_goes_through_the_cameras_network_or_its_own(goal_images):
    encoder, x = built((LOOK, LEFT), goal_images=goal_images), seen((LEFT,))
    vector = encoder({"left": x["left"], "look": x["left"]}).vector
    assert torch.allclose(vector[:, 6:12], vector[:, 12:]) == (goal_images == "shared")
    assert len(encoder.visions) == (1 if goal_images == "shared" else 2)


def test_goals_without_a_camera_have_a_network():
    assert len(built((LOOK, *STATE)).visions) == 1


@pytest.mark.parametrize("name", ["look", "aim", "said"])
def test_of_goals_and_texts_only_the_newest_step_counts(name):
    encoder, x = built(), seen()
    older = x[name].clone()
    older[:, 0] = x[name][:, 0].flip(0)
    newer = x[name].clone()
    newer[:, 1] = 1 - newer[:, 1] if name == "said" else newer[:, 1].flip(0)
    assert torch.equal(encoder(x | {name: older}).vector, encoder(x).vector)
    assert not torch.equal(encoder(x | {name: newer}).vector, encoder(x).vector)


@pytest.mark.parametrize("name", ["left", "p"])
def test_the_order_of_the_history_matters(name):
    encoder, x = built(token_dim=8), seen()
    mine, other = encoder(x), encoder(x | {name: x[name].flip(1)})
    assert not torch.allclose(mine.vector, other.vector)
    # Not even as a set: attention would see no difference between tokens in another order.
    assert not torch.allclose(
        mine.tokens.sum(1) + mine.tokens.square().sum(1), other.tokens.sum(1) + other.tokens.square().sum(1)
    )


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_any_number_of_steps_is_encoded_step_by_step(steps):
    torch.manual_seed(0)
    encoder = config(token_dim=8).build((LEFT, *STATE), steps).eval()
    x = {"left": torch.randint(0, 256, (2, steps, 16, 12, 3), dtype=torch.uint8)}
    x |= {"p": torch.rand(2, steps, 2), "a": torch.rand(2, steps, 1)}
    vector = encoder(x).vector.reshape(2, steps, 10)
    one = config().build((LEFT, *STATE), 1).eval()
    one.visions.load_state_dict(encoder.visions.state_dict())
    for step in range(steps):
        close(one({key: value[:, step : step + 1] for key, value in x.items()}).vector, vector[:, step])


def test_samples_do_not_see_each_other():
    encoder, x = built(token_dim=8), seen()
    alone = encoder({key: value[1:2] for key, value in x.items()})
    close(encoder(x).vector[1:2], alone.vector)
    close(encoder(x).tokens[1:2], alone.tokens)


def test_half_precision_weights_beside_precise_buffers():
    encoder, x = built(token_dim=8, modality_dropout=0.2, proprioception=(4,)), seen()
    want = encoder(x).vector
    for p in encoder.parameters():
        p.data = p.data.bfloat16()
    assert encoder.slots[4].part.table.dtype == torch.float32
    close(encoder(x).vector.float(), want, rtol=0.05, atol=0.05)


def test_a_vision_transformer_takes_the_place_of_the_cnn():
    vit = ViTConfig(patch=4, width=8, depth=1, heads=2, dim=6)
    encoder, x = built((LEFT,), vision=vit, token_dim=8, image_tokens="cells"), seen((LEFT,))
    close(encoder(x).vector, encoder.visions[0](pixels(x["left"], LEFT)).vector.reshape(3, -1))
    assert encoder(x).tokens.shape[1] == O * 12


def test_attention_is_where_keypoints_look():
    encoder, x = built((LEFT, SAID), vision=ResNetConfig(widths=(16,), blocks=(1,), strides=(1,))), seen((LEFT, SAID))
    found = encoder.attention(x)
    assert list(found) == ["left"]
    close(found["left"].sum((3, 4)), torch.ones(3, O, 32))
    net = encoder.visions[0]
    keypoints = (found["left"].flatten(3) @ net.pool.pos_grid).flatten(2)
    close(net.out(keypoints).relu().flatten(1), encoder(x).vector[:, :-3])


def test_attention_has_the_size_of_each_cameras_maps():
    features = (LEFT, LOOK, SMALL)
    found = built(features, vision=ResNetConfig(widths=(16,), blocks=(1,), strides=(1,))).attention(seen(features))
    assert {n: tuple(x.shape) for n, x in found.items()} == {
        "left": (3, O, 32, 4, 3),
        "look": (3, 1, 32, 4, 3),
        "small": (3, O, 32, 2, 2),
    }


def test_saliency_reaches_the_pixels():
    encoder, x = built((LEFT,)), seen((LEFT,))
    pixels = (x["left"] / 255).requires_grad_()
    encoder({"left": pixels}).vector[:, 6:].square().sum().backward()
    assert not pixels.grad[:, 0].any()
    assert (pixels.grad[:, 1].abs().sum((3,)) > 0).float().mean() > 0.9


def test_what_is_prepared_is_read_once_and_stays_in_the_weights(tmp_path, monkeypatch):
    standard = ResNetConfig(widths=(8,), blocks=(1,), strides=(1,), stem="standard", norm="batch", dim=6)
    source = standard.build(size=(16, 12))
    save_file(torchvision_state(source), tmp_path / "weights.safetensors")
    told = ResNetConfig(**{**vars(standard), "weights": str(tmp_path / "weights.safetensors")})
    model = SentenceModelConfig(model="known", width=16)
    monkeypatch.setattr(SentenceModelConfig, "embed", lambda _, sentences: TEXT.embed(sentences))
    encoder, x = built((LEFT, SAID), vision=told, text=model), seen((LEFT, SAID))
    encoder.prepare()
    assert torch.equal(encoder.visions[0].backbone[0].weight, source.backbone[0].weight)
    (tmp_path / "weights.safetensors").unlink()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    loaded = config(vision=told, text=model).build((LEFT, SAID), O).eval()
    loaded.load_state_dict(encoder.state_dict())
    assert torch.equal(loaded(x).vector, encoder(x).vector)


def test_sentences_said_at_run_time_are_embedded():
    encoder, x = built(), seen()
    known = encoder.embed(["go right"]).expand(3, O, -1)
    assert torch.equal(encoder(x | {"said": known}).vector, encoder(x | {"said": torch.ones(3, O, 1).long()}).vector)
    unknown = encoder(x | {"said": encoder.embed(["waddle sideways"]).expand(3, O, -1)}).vector
    assert unknown.isfinite().all()
    with pytest.raises(SchemaError, match="text=null"):
        built(STATE, text=None).embed(["go"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x.pop("left"), SchemaError, r"expected a camera 'left', got \["),
        (lambda x: x.pop("p"), SchemaError, "expected an observation 'p'"),
        (lambda x: x.pop("said"), SchemaError, "expected an observation 'said'"),
        (
            lambda x: x.update(left=x["left"].permute(0, 1, 4, 2, 3)),
            ShapeError,
            "'left'.*channels are on the other end",
        ),
        (lambda x: x.update(left=x["left"][:, :, :8]), ShapeError, r"'left': expected \[B, 2, 16, 12, 3\]"),
        (lambda x: x.update(left=x["left"].long()), SchemaError, "'left': expected uint8"),
        (lambda x: x.update(aim=x["aim"] + 3), SchemaError, r"goal 'aim': expected values in -1\.\.1"),
        (lambda x: x.update(said=x["said"] + 2), SchemaError, "'said': expected positions of its 2 sentences"),
        (lambda x: x.update(a=x["a"][:, :1]), ShapeError, r"'a': expected \[B, 2"),
    ],
)
def test_bad_observations_are_refused_before_anything_is_computed(change, error, message):
    encoder, x = built(), seen()
    encoder.check(x)
    change(x)
    with pytest.raises(error, match=message):
        encoder.check(x)


def test_forward_refuses_the_same_but_ranges_which_it_cannot_know():
    encoder, x = built(), seen()
    with pytest.raises(SchemaError, match="expected a camera 'left'"):
        encoder({key: value for key, value in x.items() if key != "left"})
    encoder(x | {"aim": x["aim"] + 3})
    with pytest.raises(SchemaError, match=r"may be absent, got 'left'.*modality_dropout"):
        encoder(x, absent={"left": torch.ones(3, dtype=torch.bool)})


def test_each_camera_may_be_cropped_by_itself_or_not_at_all():
    sizes = {"left": (8, 10), "look": (6, 4)}
    encoder, x = built((LEFT, SMALL, LOOK), crop=CropEach(sizes)), seen((LEFT, SMALL, LOOK))
    cut = x | {"left": x["left"][:, :, 4:12, 1:11], "look": x["look"][:, :, 5:11, 4:8]}
    smaller = [replace(f, shape=(*sizes[f.name], 3)) if f.name in sizes else f for f in (LEFT, SMALL, LOOK)]
    # Built from one seed, both have the same weights.
    assert torch.equal(built(tuple(smaller))(cut).vector, encoder(x).vector)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        ((SAID,), {"text": None}, SchemaError, "encoder for the text 'said', got text=null"),
        ((LEFT,), {"modality_dropout": 0.1, "droppable": ("lift",)}, ConfigError, "'lift'.*did you mean 'left'"),
        ((*STATE, Feature("state", (8, 8, 3), kind="image")), {}, SchemaError, "called 'state'"),
        ((LEFT,), {"crop": CropSize(20, 8)}, ConfigError, "camera 'left': expected a crop inside 16 x 12"),
        ((LEFT,), {"crop": CropEach({"lift": (4, 4)})}, ConfigError, "image to crop, got 'lift'.*did you mean 'left'"),
        ((LEFT,), {"crop": CropEach({"left": (20, 8)})}, ConfigError, "camera 'left': expected a crop inside 16 x 12"),
        ((LEFT, SMALL), {"vision": ViTConfig(patch=4), "cameras": "shared"}, ConfigError, "one size to share"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(features, options, error, message):
    with pytest.raises(error, match=message):
        built(features, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"std": (0.5, 0.0, 0.5)},
        {"mean": (0.5, float("nan"), 0.5)},
        {"text_dim": 0},
        {"token_dim": 0},
        {"proprioception": (8, 0)},
        {"modality_dropout": 1.0},
        {"droppable": ("left",)},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        EncoderConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vision": ViTConfig(pool="mean"), "crop": CropSize(4, 5), "text": None},
        {"crop": CropRatio(0.9), "text": SentenceModelConfig(), "droppable": ("left",), "modality_dropout": 0.1},
        {"crop": CropEach({"left": (4, 5)}), "vision": StandardResNetConfig(34, norm="batch", weights="file")},
        {"proprioception": (64, 64), "token_dim": 32, "mean": (0.4, 0.5, 0.6)},
    ],
)
def test_it_survives_json(options):
    mine = config(**options)
    assert decode(EncoderConfig, json.loads(json.dumps(encode(mine, EncoderConfig)))) == mine
