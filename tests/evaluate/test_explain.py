"""What a policy's actions depend on: saliency, covering, influence and keypoints against what they must be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import TASK, Wander

from noise2action.data.actions import Relative
from noise2action.data.episodes import Episodes
from noise2action.data.normalize import Normalizer
from noise2action.diffusion.samplers import Adaptive
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.image import CropSize
from noise2action.encoders.pooling import AveragePoolConfig, SpatialSoftmaxConfig
from noise2action.encoders.resnet import ResNetConfig
from noise2action.encoders.text import HashedNGramsConfig
from noise2action.encoders.vit import ViTConfig
from noise2action.errors import ConfigError
from noise2action.evaluate.attention import attended
from noise2action.evaluate.explain import EVERYTHING, NOISE, OLDER, Subject, influences, moved, share_text
from noise2action.evaluate.explain_figures import attention_bars, influence_bars, keypoint_maps, looks
from noise2action.evaluate.keypoints import keypoints, window
from noise2action.evaluate.moments import Moments, of_demonstrations, of_rollouts
from noise2action.evaluate.rollouts import rollout
from noise2action.evaluate.saliency import covering, occlusion, saliency
from noise2action.evaluate.statistics import Estimate
from noise2action.evaluate.views import Looking, views
from noise2action.nets import DiTConfig, MLPConfig, TransformerConfig, UNet1dConfig
from noise2action.nets.autoencoder import MLPAutoencoderConfig
from noise2action.policies import (
    DiffusionConfig,
    LatentDiffusionConfig,
    MixtureConfig,
    PolicySpec,
    RegressionConfig,
    Sampling,
)
from noise2action.schema import Feature, Schema
from noise2action.seeds import generator

close = torch.testing.assert_close

CAMERA = Feature("camera", (8, 6, 3), kind="image", dtype="uint8")
LOOK = Feature("look", (3, 6, 6), kind="image", dtype="uint8", goal=True)
SAID = Feature("said", (1,), kind="text", dtype="int64", sentences=("left", "right"))
SCHEMA = Schema((Feature("p", (2,)), CAMERA, LOOK, SAID), Feature("action", (2,), unit="m"))
SPEC = PolicySpec(obs_steps=2, horizon=5, stride=3, first_action=-1)
VISION = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), pool=AveragePoolConfig(), dim=4, activation="none")
ENCODER = EncoderConfig(vision=VISION, goal_images="own", text=HashedNGramsConfig(width=8), text_dim=2)
NET = MLPConfig(width=16, blocks=1, condition_width=8, time_dim=8)
SCALES = Normalizer.fit(
    {"p": np.array([[-3.0, -2.0], [3.0, 2.0]]), "action": np.array([[-1.0, -2.0], [1.0, 2.0]])},
    {"p": "limits", "action": "limits"},
)
SAMPLING = Sampling(nfe=3, clip=None)
CODES = MLPAutoencoderConfig(latent=(2, 2), width=8)
CONFIGS = [
    RegressionConfig(SPEC, NET, ENCODER),
    DiffusionConfig(SPEC, NET, ENCODER, sampling=SAMPLING),
    LatentDiffusionConfig(SPEC, NET, ENCODER, autoencoder=CODES, sampling=SAMPLING),
    MixtureConfig(SPEC, NET, ENCODER, components=2),
]


def subject(config, *, schema=SCHEMA, dtype=torch.float32):
    """Return a policy with random weights, those that start at zero included."""
    torch.manual_seed(0)
    policy = config.build(schema, SCALES)
    policy.requires_grad_(requires_grad=False)
    for p in policy.parameters():
        p.normal_(0, 0.3)
    return Subject(policy.eval().to(dtype))


def moments(size=6, *, episodes=3, seed=0, dtype=torch.float32, camera=CAMERA):
    g = generator(seed, "moments")
    history = {
        "p": torch.randn(size, 2, 2, generator=g, dtype=dtype),
        "camera": torch.randint(0, 256, (size, 2, *camera.shape), dtype=torch.uint8, generator=g),
        "look": torch.randint(0, 256, (size, 2, *LOOK.shape), dtype=torch.uint8, generator=g),
        "said": torch.randint(0, 2, (size, 1, 1), generator=g).expand(-1, 2, -1),
    }
    return Moments(history, tuple(k % episodes for k in range(size)), tuple(range(size)))


def blind(of, *names):
    """Make the vectors of some modalities 0, whatever they see."""
    for name in names:
        vision = of.encoder.visions[of.cameras[name].position]
        vision.out.weight.zero_()
        vision.out.bias.zero_()
    return of


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_saliency_is_the_norm_of_the_derivative_by_finite_differences(config):
    of, one = subject(config, dtype=torch.float64), moments(1, dtype=torch.float64)
    history = {n: x.double() / 255 if x.dtype == torch.uint8 else x for n, x in one.history.items()}
    found = saliency(of, replace(one, history=history), probes=12, noise=7)
    # A mixture is float32 whatever its network is.
    size, close_enough = (3e-4, 2e-2) if isinstance(config, MixtureConfig) else (1e-5, 1e-4)
    for name, place in (("camera", (0, 3, 1)), ("camera", (1, 6, 2)), ("look", (1, 3, 0))):
        total = torch.zeros((), dtype=torch.float64)
        for colour in range(3):
            ends = []
            step, y, x = place
            at = (0, step, y, x, colour) if name == "camera" else (0, step, colour, y, x)
            for h in (size, -size):
                told = history[name].clone()
                told[at] += h
                ends.append(of.executed({**history, name: told.clamp(0, 1)}, [7])[0])
            total += ((ends[0] - ends[1]) / (2 * size)).square().sum()
        assert float(total) > 0
        close(found[name][place], (total / SPEC.stride).sqrt(), rtol=close_enough, atol=1e-9)
    # Only the newest goal counts.
    assert not bool(found["look"][0].any())


def test_saliency_is_exact_with_whole_bases_and_near_with_a_part_of_one():
    of, one = subject(CONFIGS[0]), moments(1)
    exact, twice, some = (saliency(of, one, probes=k)["camera"] for k in (6, 12, 3))
    close(exact, twice)
    assert not torch.allclose(exact, some, rtol=1e-3)
    close(some.square().sum(), exact.square().sum(), rtol=0.9, atol=0.0)
    shaken = saliency(of, one, probes=12, smooth=0.1)["camera"]
    assert bool(shaken.isfinite().all())
    assert not torch.equal(shaken, exact)


def test_an_adaptive_sampler_has_no_gradient_and_says_what_has():
    of = subject(CONFIGS[1])
    adaptive = Subject(of.policy.resampled(Sampling(sampler=Adaptive(), clip=None)))
    with pytest.raises(ConfigError, match=r"fixed grid.*--sampler ddim"):
        saliency(adaptive, moments(1))


@pytest.mark.parametrize("vision", [VISION, ViTConfig(patch=2, width=8, depth=1, heads=2)])
@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda c: type(c).__name__)
def test_covering_moves_the_actions_by_what_the_changed_picture_moves_them(config, vision):
    of = subject(replace(config, encoder=replace(ENCODER, vision=vision)))
    one = moments(1)
    grey = covering(one.history["camera"][:, -1], 0, "grey", channels_first=False)
    found = occlusion(of, one, "camera", cover=grey, patch=5, noise=2)
    base = of.executed(one.history, [2])
    expected, count = torch.zeros(8, 6), torch.zeros(8, 6)
    for top in range(4):
        for left in range(2):
            told = one.history["camera"].clone()
            told[:, :, top : top + 5, left : left + 5] = 128
            distance = moved(of.executed({**one.history, "camera": told}, [2]), base)[0]
            expected[top : top + 5, left : left + 5] += distance
            count[top : top + 5, left : left + 5] += 1
    close(found, expected / count)


def test_what_a_policy_does_not_look_at_moves_its_actions_by_exactly_zero():
    of, some = blind(subject(CONFIGS[1]), "camera"), moments()
    one = some.take([0])
    black = torch.zeros_like(one.history["camera"][0, 0])
    assert not bool(occlusion(of, one, "camera", cover=black, patch=3).any())
    assert not bool(saliency(of, one)["camera"].any())
    assert bool(saliency(of, one)["look"].any())
    begun = []
    found = {i.name: i for i in influences(of, some, on_progress=lambda *w: begun.append(w))}
    assert begun == [("influence", k, len(found)) for k in range(len(found))]
    assert not bool(found["camera"].moved.any())
    assert all(bool(found[name].moved.all()) for name in ("p", "look", EVERYTHING, NOISE))


def test_a_picture_covered_by_itself_or_outside_the_crop_moves_nothing():
    cropped = replace(ENCODER, crop=CropSize(4, 4), modality_dropout=0.1, droppable=("said",))
    of, one = subject(replace(CONFIGS[0], encoder=cropped)), moments(1)
    still = torch.cat([one.history["camera"][:, :1]] * 2, dim=1)
    one = replace(one, history={**one.history, "camera": still})
    assert not bool(occlusion(of, one, "camera", cover=still[0, 0], patch=3).any())
    black = torch.zeros_like(still[0, 0])
    found = occlusion(of, one, "camera", cover=black, patch=1)
    left, top, width, height = window(of.cameras["camera"].camera)
    assert (left, top, width, height) == (1, 2, 4, 4)
    inside = torch.zeros_like(found, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert bool((found[inside] > 0).all())
    assert not bool(found[~inside].any())


def test_covers_are_of_the_pictures_kind():
    pictures = moments().history["camera"][:, -1]
    mean = covering(pictures, 1, "mean", channels_first=False)
    close(mean[0, 0].double(), pictures[1].double().mean((0, 1)), rtol=0, atol=1.0)
    close(covering(pictures.movedim(3, 1), 1, "mean", channels_first=True), mean.movedim(2, 0))
    fixed = pictures[:1].repeat(5, 1, 1, 1)
    fixed[0] = 0
    assert torch.equal(covering(fixed, 0, "background", channels_first=False), fixed[1])
    assert float(covering(pictures / 255, 0, "grey", channels_first=False)[0, 0, 0]) == 0.5


def test_influence_is_how_far_another_observation_moves_the_actions():
    """Two moments of two episodes: each has one partner only."""
    of, two = subject(CONFIGS[1]), moments(2, episodes=2)
    found = {i.name: i for i in influences(of, two, swaps=2)}
    assert list(found) == ["p", "camera", "look", "said", OLDER, EVERYTHING, NOISE]
    base, history = of.executed(two.history, [0, 1]), two.history
    for name in ("p", "camera"):
        close(found[name].moved, moved(of.executed({**history, name: history[name].flip(0)}, [0, 1]), base))
    close(found[EVERYTHING].moved, moved(of.executed(two.history, [1, 0]).flip(0), base))
    still = {n: torch.stack([x[:, 1], x[:, 1]], dim=1) for n, x in history.items()}
    close(found[OLDER].moved, moved(of.executed(still, [0, 1]), base))
    other = [moved(of.executed(two.history, [k, k + 1]), base) for k in (2, 4)]
    close(found[NOISE].moved, torch.stack(other).mean(0))


def test_influence_without_noise_and_of_what_never_changes():
    of, some = subject(CONFIGS[0]), moments()
    some = replace(some, history={**some.history, "said": torch.zeros_like(some.history["said"])})
    found = {i.name: i for i in influences(of, some)}
    assert not bool(found[NOISE].moved.any())
    assert (found["said"].changed, found["p"].changed) == (0.0, 1.0)
    same = some.take([0, 0, 0])
    with pytest.raises(ConfigError, match="moments that differ"):
        influences(of, same)
    with pytest.raises(ConfigError, match="at least 2 moments"):
        influences(of, some.take([0]))


def test_influence_of_a_modality_that_may_be_absent():
    of = subject(replace(CONFIGS[0], encoder=replace(ENCODER, modality_dropout=0.2, droppable=("camera",))))
    some = moments()
    found = {i.name: i for i in influences(of, some)}
    less = {n: x for n, x in some.history.items() if n != "camera"}
    expected = moved(of.executed(less, range(6)), of.executed(some.history, range(6)))
    close(found["camera, absent"].moved, expected)
    assert float(found["camera, absent"].moved.min()) > 0


def test_a_state_that_actions_are_relative_to_has_no_influence_by_that_alone():
    config = replace(CONFIGS[0], spec=replace(SPEC, action_space=Relative("p")))
    of = subject(config)
    encoder, net = of.encoder, of.policy.backbone.net
    columns = torch.tensor([encoder.modalities[k] == "state" for k in encoder.column_owners.tolist()])
    for layer in (net.condition[0], net.enter):
        layer.weight[:, -encoder.dim :][:, columns] = 0
    found = {i.name: i for i in influences(of, moments())}
    close(found["p"].moved, torch.zeros(6), rtol=0, atol=1e-5)
    assert float(found["camera"].moved.min()) > 1e-3


SOFT = replace(VISION, pool=SpatialSoftmaxConfig(keypoints=3))


def test_keypoints_are_where_their_weights_are_and_matter_where_they_are_used():
    large = replace(CAMERA, shape=(14, 10, 3))
    schema = replace(SCHEMA, observations=(*SCHEMA.observations[:1], large, SAID))
    of = subject(replace(CONFIGS[1], encoder=replace(ENCODER, vision=SOFT, crop=CropSize(12, 8))), schema=schema)
    some = moments(camera=large)
    some = replace(some, history={name: some.history[name] for name in ("p", "camera", "said")})
    of.encoder.visions[of.cameras["camera"].position].out.weight[:, 2:4] = 0  # x and y of keypoint 1
    before = of.executed(some.history, range(6))
    found = keypoints(of, some)
    camera = found["camera"]
    close(camera.weights.sum((2, 3)), torch.ones(6, 3))
    rows, columns = camera.weights.shape[2:]
    # The window begins at pixel (1, 1); 3 x 2 cells share its 12 x 8 pixels evenly.
    assert (rows, columns) == (3, 2)
    x = 1 + (torch.arange(columns) + 0.5) * 4 - 0.5
    y = 1 + (torch.arange(rows) + 0.5) * 4 - 0.5
    close(camera.places[..., 0], (camera.weights.sum(2) * x).sum(2))
    close(camera.places[..., 1], (camera.weights.sum(3) * y).sum(2))
    close(camera.spread, camera.places.std(0, correction=0).square().sum(1).sqrt())
    assert float(camera.influence[1]) == 0
    assert camera.foremost(3)[2] == 1
    assert float(camera.influence[[0, 2]].min()) > 0
    assert torch.equal(of.executed(some.history, range(6)), before)


ASKING = [
    TransformerConfig(width=8, layers=2, heads=2, time_dim=8),
    DiTConfig(width=8, layers=2, heads=2, time_dim=8, conditioning="cross_attention"),
    UNet1dConfig(widths=(8, 16), kernel=3, groups=4, time_dim=8, conditioning="cross_attention"),
]
PLACES = replace(ENCODER, token_dim=4, image_tokens="cells", modality_dropout=0.1, droppable=("look",))


@pytest.mark.parametrize("vision", [replace(VISION, stem="standard"), ViTConfig(patch=2, width=8, depth=1, heads=2)])
@pytest.mark.parametrize("net", ASKING, ids=lambda c: type(c).__name__)
def test_attention_is_shared_among_places_and_modalities(net, vision):
    of = subject(replace(CONFIGS[1], net=net, encoder=replace(PLACES, vision=vision)))
    some = moments()
    found = attended(of, some)
    assert list(found.shares) == list(of.encoder.modalities)
    whole = sum(found.shares.values())
    if isinstance(net, TransformerConfig):  # diffusion time is a token there
        assert bool((whole < 1).all())
    else:
        close(whole, torch.ones(6))
    for name, places in found.places.items():
        close(places.sum((1, 2, 3)), found.shares[name])
    # One row alone sees the same, and what is absent is its null: one token.
    close(attended(of, some.take([0])).places["camera"], found.places["camera"][:1], rtol=0, atol=0)
    left = replace(some, history={n: x for n, x in some.history.items() if n != "look"})
    look = attended(of, left).places["look"].flatten(1)
    assert float(look[:, 0].min()) > 0
    assert not bool(look[:, 1:].any())


@pytest.mark.parametrize("net", ASKING[1:], ids=lambda c: type(c).__name__)
def test_a_place_that_is_like_no_other_stands_where_it_is(net):
    of = subject(replace(CONFIGS[1], net=net, encoder=replace(PLACES, vision=ViTConfig(patch=2, width=8, heads=2))))
    for slot in of.encoder.slots:
        slot.tokens.weight.zero_()
        slot.places.zero_()
        slot.places += slot.tokens.bias.zero_()
        if slot.part.name == "camera":
            slot.places[1 * 12 + 2 * 3 + 1] = 3.0  # second step, third of four rows, second of three columns
    found = attended(of, moments(2)).places["camera"]
    assert found.shape == (2, 2, 4, 3)
    usual = found[:, :1, :1, :1]
    other = (found - usual).abs() > 1e-6
    assert other.nonzero().tolist() == [[n, 1, 2, 1] for n in range(2)]


@pytest.mark.parametrize(
    "config",
    [
        CONFIGS[0],
        replace(CONFIGS[0], net=ASKING[0]),
        replace(CONFIGS[0], net=replace(ASKING[0], conditioning="concat"), encoder=PLACES),
    ],
)
def test_a_network_that_asks_no_tokens_attends_to_nothing(config):
    assert attended(subject(config), moments(2)) is None


def test_figures_and_numbers_of_every_image():
    of, some = subject(replace(CONFIGS[0], encoder=replace(ENCODER, vision=SOFT))), moments()
    begun = []
    camera, look = views(of, some, [0, 3], Looking(probes=6, cover="grey"), on_progress=lambda *w: begun.append(w))
    stages = ("gradients", "covering camera", "covering look")
    assert [w for w in begun if w[0] != "keypoints"] == [(stage, k, 2) for stage in stages for k in range(2)]
    assert begun[:2] == [("keypoints", k, len(camera.keypoints.influence)) for k in range(2)]
    assert look.pictures.shape == (2, 6, 6, 3)
    numbers = camera.numbers()
    assert [frame["tick"] for frame in numbers["frames"]] == [0, 3]
    assert sum(numbers["frames"][0]["gradient"]["share_of_steps"]) == pytest.approx(1)
    x, y = numbers["frames"][1]["covered"]["at"]
    assert float(camera.covered[1, y, x]) == float(camera.covered[1].max())
    figure = looks(camera, unit="m", control_hz=10.0)
    figure.draw_without_rendering()
    assert [a.get_title() for a in figure.axes[:2]] == ["0.0 s", "0.3 s"]
    keypoint_maps(camera, camera.keypoints, unit="m", control_hz=10.0).draw_without_rendering()
    assert camera.attention is None
    asking = subject(replace(CONFIGS[0], net=ASKING[0], encoder=PLACES))
    figure = looks(views(asking, some, [0, 3], Looking(probes=6))[0], unit="m", control_hz=10.0)
    figure.draw_without_rendering()
    assert "cross-\nattention" in [a.get_ylabel() for a in figure.axes]
    bars = {"a": Estimate(1.0, 0.5, 1.5, 3), EVERYTHING: Estimate(2.0, -np.inf, np.inf, 1)}
    attention_bars(bars).draw_without_rendering()
    figure = influence_bars(bars, unit="m", whole=EVERYTHING, noise=NOISE)
    figure.draw_without_rendering()
    assert [t.get_text() for t in figure.axes[0].texts] == ["50 %", "100 %"]
    figure = influence_bars({**bars, NOISE: Estimate(500.0, 400.0, 600.0, 3)}, unit="m", whole=EVERYTHING, noise=NOISE)
    figure.draw_without_rendering()
    assert figure.axes[0].get_xlim() == (0, 4)
    last = figure.axes[0].texts[-1]
    assert last.get_text() == "> 1000 %: 500 \N{RIGHTWARDS ARROW}"
    assert last.get_window_extent().x1 <= figure.bbox.width


def test_a_legend_lies_on_its_figure_however_few_the_pictures():
    of = subject(replace(CONFIGS[0], encoder=replace(ENCODER, vision=SOFT)))
    camera, _ = views(of, moments(), [0], Looking(probes=6))
    for figure in (
        looks(camera, unit="metres per second", control_hz=10.0),
        keypoint_maps(camera, camera.keypoints, unit="metres per second", control_hz=10.0),
    ):
        figure.draw_without_rendering()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_a_share_that_means_nothing_is_not_written_out():
    assert [share_text(part, 2.0) for part in (0.0, 1.0, 20.0, 500.0)] == ["0 %", "50 %", "1000 %", "> 1000 %"]
    assert share_text(1.0, 0.0) == ""


def test_moments_of_rollouts_are_those_of_its_plans():
    policy = Wander()
    found = of_rollouts(TASK, policy, [5, 9], each=3)
    assert found.episodes[0] == 5
    assert found.episodes[-1] == 9
    assert found.ticks[0] == 0
    assert all(tick % policy.spec.stride == 0 for tick in found.ticks)
    trace = rollout(TASK, Wander(), [5])[0].trace
    for k in range(3):
        seen = trace.observations["position"][max(found.ticks[k] - 1, 0) : found.ticks[k] + 1]
        close(found.history["position"][k], torch.from_numpy(np.resize(seen, (2, 2))))


def test_moments_of_demonstrations_are_windows_of_them():
    rng = np.random.default_rng(0)
    parts = [
        {
            "p": rng.normal(size=(n, 2)),
            "camera": rng.integers(0, 256, (n, *CAMERA.shape), np.uint8),
            "look": rng.integers(0, 256, (n, *LOOK.shape), np.uint8),
            "said": np.ones((n, 1), np.int64),
            "action": rng.normal(size=(n, 2)),
        }
        for n in (7, 9, 8)
    ]
    found = of_demonstrations(Episodes.concatenate(parts), subject(CONFIGS[0]).policy, count=2, each=3)
    assert (found.episodes, found.ticks) == ((0, 0, 0, 1, 1, 1), (0, 2, 4, 0, 3, 6))
    close(found.history["camera"][4], torch.from_numpy(parts[1]["camera"][2:4]))
    close(found.history["p"][0], torch.from_numpy(parts[0]["p"][[0, 0]]).float())
    assert found.history["said"].dtype == torch.int64
