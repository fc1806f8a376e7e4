"""Policies that see, remember and are told: every kind of observation through training, checkpoints and plans."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from noise2action.control.executor import Executor
from noise2action.data.episodes import Episodes
from noise2action.data.loader import Loader
from noise2action.data.normalize import Normalizer
from noise2action.data.windows import Windows
from noise2action.diffusion.samplers import DDIM, Scheduler
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.image import CropSize
from noise2action.encoders.pooling import AveragePoolConfig
from noise2action.encoders.pretrained import torchvision_state
from noise2action.encoders.resnet import ResNetConfig
from noise2action.encoders.text import HashedNGramsConfig
from noise2action.errors import ConfigError, SchemaError, ShapeError
from noise2action.nets import DiTConfig, FusionMLPConfig, MLPConfig, TransformerConfig, UNet1dConfig
from noise2action.policies import (
    DiffusionConfig,
    Guided,
    LatentDiffusionConfig,
    MixtureConfig,
    PolicySpec,
    RegressionConfig,
    Sampling,
)
from noise2action.policies.checkpoint import Deployed, build, load
from noise2action.schema import Feature, Schema
from noise2action.seeds import generator
from noise2action.train.config import TrainConfig
from noise2action.train.loop import Job, fit
from noise2action.train.weights import Weights

close = torch.testing.assert_close

CAMERA = Feature("camera", (12, 10, 3), kind="image", dtype="uint8")
SAID = Feature("said", (1,), kind="text", dtype="int64", sentences=("go left", "go right"))
SCHEMA = Schema(
    (Feature("p", (2,)), CAMERA, SAID, Feature("aim", (2,), low=-2.0, high=2.0, goal=True)), Feature("action", (2,))
)
SPEC = PolicySpec(obs_steps=2, horizon=8, stride=4)
VISION = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), pool=AveragePoolConfig(), dim=6)
ENCODER = EncoderConfig(vision=VISION, text=HashedNGramsConfig(width=16), text_dim=3, crop=CropSize(8, 8))
ABSENT = replace(ENCODER, modality_dropout=0.5, droppable=("camera", "said"))
NET = MLPConfig(width=32, blocks=1, condition_width=16, time_dim=16)


def episodes(count=4, length=12):
    rng = np.random.default_rng(0)
    return Episodes.concatenate(
        {
            "p": rng.normal(size=(length, 2)).astype(np.float32) * 3,
            "camera": rng.integers(0, 256, (length, *CAMERA.shape), np.uint8),
            "said": np.full((length, 1), k % 2, np.int64),
            "aim": rng.uniform(-2, 2, (length, 2)).astype(np.float32),
            "action": rng.normal(size=(length, 2)).astype(np.float32),
        }
        for k in range(count)
    )


DATA = episodes()
SCALES = Normalizer.fit(DATA.arrays, {"p": "limits", "aim": "limits", "action": "limits"})


def loader(seed=0, batch_size=8):
    windows = Windows(DATA.ends, SPEC.obs_steps, SPEC.horizon)
    return Loader(DATA, windows, SCALES, batch_size=batch_size, seed=seed, raw=("camera", "said"))


def policy(config):
    torch.manual_seed(0)
    built = config.build(SCHEMA, SCALES).eval().requires_grad_(requires_grad=False)
    for parameter in built.parameters():  # networks start at zero output, whatever they are told
        parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def history(batch=3):
    g = generator(0, "history")
    return {
        "p": torch.randn(batch, 2, 2, generator=g),
        "camera": torch.randint(0, 256, (batch, 2, *CAMERA.shape), dtype=torch.uint8, generator=g),
        "said": torch.randint(0, 2, (batch, 2, 1), generator=g),
        "aim": torch.rand(batch, 2, 2, generator=g),
    }


def plan(of, seen, seed=1):
    return of.plan(seen, generator=generator(seed, "plan"))


CONFIGS = [
    DiffusionConfig(SPEC, NET, ENCODER),
    DiffusionConfig(SPEC, UNet1dConfig(widths=(8, 16), groups=4, time_dim=8), ABSENT, p_uncond=0.2, draws=2),
    DiffusionConfig(SPEC, TransformerConfig(width=16, layers=1, heads=2), replace(ABSENT, token_dim=8)),
    DiffusionConfig(
        SPEC,
        DiTConfig(width=16, layers=1, heads=2, conditioning="cross_attention"),
        replace(ENCODER, token_dim=8, image_tokens="cells"),
    ),
    RegressionConfig(SPEC, FusionMLPConfig(), ENCODER),
    MixtureConfig(SPEC, NET, ENCODER, components=2),
    LatentDiffusionConfig(SPEC, NET, ABSENT),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{type(c).__name__}-{type(c.net).__name__}")
def test_a_policy_of_every_modality_trains_and_its_checkpoint_plans_the_same(config, tmp_path):
    train = TrainConfig(steps=4, precision="bf16", ema_every=1, warmup_steps=1)
    job = Job(Deployed("seen", config, SCHEMA), train, SCALES, loader(), loader(seed=1), 0)
    assert fit(job, tmp_path)
    trained = build(load(tmp_path))
    fresh = policy(config)
    state = trained.state_dict()
    assert any(
        not torch.equal(x, state[name])
        for name, x in fresh.state_dict().items()
        if "slots" in name or "visions" in name
    )
    seen = history()
    actions = plan(trained, seen)
    assert actions.shape == (3, 8, 2)
    assert bool(actions.isfinite().all())
    for name in ("camera", "said", "aim", "p"):
        # Enough of a change that a network that looks at the modality at all cannot but answer.
        other = {**seen, name: 1 - seen[name] if name != "camera" else 255 - seen[name]}
        assert not torch.equal(plan(trained, other), actions)


def test_a_camera_may_drop_out_where_the_policy_was_trained_for_it_and_nowhere_else():
    of, seen = policy(CONFIGS[1]), history()
    less = {name: x for name, x in seen.items() if name != "camera"}
    everywhere = torch.ones(3, dtype=torch.bool)
    condition = of.backbone.encoder.hide(of.backbone.condition(seen), {"camera": everywhere})
    close(of.backbone.condition(less).vector, condition.vector)
    assert plan(of, less).shape == (3, 8, 2)
    with pytest.raises(SchemaError, match=r"expected a camera 'camera', got .* modality_dropout"):
        plan(policy(CONFIGS[0]), less)


def test_an_executor_goes_on_without_a_camera_that_drops_out():
    of = policy(CONFIGS[1])
    both, one = (Executor(of, [generator(0, "robot")]) for _ in range(2))
    tick = {name: x[:1, 0].numpy() for name, x in history().items()}
    blind = {name: x for name, x in tick.items() if name != "camera"}
    first = both.act(tick)
    assert np.isfinite(first).all()
    for _ in range(SPEC.stride):
        action = both.act(blind)
        assert np.isfinite(action).all()
    assert both.planned
    assert not np.array_equal(one.act(blind), first)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            lambda x: np.moveaxis(x, -1, -3),
            ShapeError,
            r"got \(1, 3, 12, 10\): its channels are on the other end, permute",
        ),
        (lambda x: x[:, :8], ShapeError, r"got \(1, 8, 10, 3\): resize it to 12 x 10 pixels, channels last"),
        (lambda x: x[:, None, 0, 0], ShapeError, r"got \(1, 1, 3\)$"),
        (lambda x: x.astype(np.int64), SchemaError, "got torch.int64: give 0..255 as uint8"),
        (lambda x: x.astype(np.float64), SchemaError, "got 0..255: give 0..255 as uint8"),
    ],
)
def test_a_picture_in_a_control_loop_that_does_not_fit_is_told_what_makes_it_fit(value, error, message):
    tick = {name: x[:1, 0].numpy() for name, x in history().items()}
    tick["camera"][0, 0, 0] = [0, 128, 255]
    with pytest.raises(error, match=f"'camera': expected .*{message}"):
        Executor(policy(CONFIGS[0]), [generator(0, "robot")]).act({**tick, "camera": value(tick["camera"])})


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("camera", lambda x: x.float(), SchemaError, "expected floating values in 0..1"),
        ("camera", lambda x: x[..., :8, :, :], ShapeError, "expected \\[B, 2, 12, 10, 3\\].*: resize it to 12 x 10"),
        ("camera", lambda x: x.movedim(-1, -3), ShapeError, "permute"),
        ("said", lambda x: x + 5, SchemaError, "expected positions of its 2 sentences"),
        ("aim", lambda x: x + 5, SchemaError, "expected values in -2..2"),
        ("p", lambda x: x[:, :1], ShapeError, r"\(2 steps\)"),
    ],
)
def test_what_was_not_declared_is_refused_before_anything_is_planned(name, value, error, message):
    seen = history()
    with pytest.raises(error, match=message):
        plan(policy(CONFIGS[0]), {**seen, name: value(seen[name])})


def test_a_text_needs_an_encoder_of_texts():
    with pytest.raises(SchemaError, match=r"'said'.*text=null"):
        policy(DiffusionConfig(SPEC, NET, EncoderConfig(vision=VISION)))


def guided(weight, *, names=("said",), **options):
    return Sampling(guided=tuple(Guided(name, weight) for name in names), nfe=4, clip=None, **options)


@pytest.mark.parametrize("config", [CONFIGS[1], CONFIGS[2]])
def test_guidance_by_one_modality_is_the_formula_with_and_without_it(config):
    of, seen = policy(config), history()
    condition = of.backbone.condition(seen)
    without = of.backbone.encoder.hide(condition, {"said": torch.ones(3, dtype=torch.bool)})
    x = torch.randn(3, 8, 2)
    t = torch.tensor(0.5)
    told, untold = (of.resampled(Sampling(clip=None)).denoiser(c)(x, t) for c in (condition, without))
    assert not torch.equal(told, untold)
    for w in (-1.0, 0.0, 3.0):
        close(of.resampled(guided(w)).denoiser(condition)(x, t), (1 + w) * told - w * untold, rtol=1e-4, atol=1e-5)
    # Bit for bit where a single call is enough.
    assert torch.equal(plan(of.resampled(guided(0.0)), seen), plan(of.resampled(Sampling(nfe=4, clip=None)), seen))
    less = {name: value for name, value in seen.items() if name != "said"}
    close(plan(of.resampled(guided(-1.0)), seen), plan(of.resampled(Sampling(nfe=4, clip=None)), less))


def test_guidance_by_two_modalities_adds_what_each_says_alone():
    of = policy(CONFIGS[1])
    condition = of.backbone.condition(history())
    everywhere = torch.ones(3, dtype=torch.bool)
    x, t = torch.randn(3, 8, 2), torch.tensor(0.5)

    def hidden(*names):
        c = of.backbone.encoder.hide(condition, dict.fromkeys(names, everywhere))
        return of.resampled(Sampling(clip=None)).denoiser(c)(x, t)

    both = Sampling(guided=(Guided("said", 2.0), Guided("camera", 0.5)), nfe=4, clip=None)
    expected = 3 * hidden("camera") + 1.5 * hidden("said") - 3.5 * hidden("camera", "said")
    close(of.resampled(both).denoiser(condition)(x, t), expected, rtol=1e-4, atol=1e-5)


def test_guidance_by_what_was_never_hidden_is_refused():
    of = policy(CONFIGS[0])
    with pytest.raises(ConfigError, match=r"trained to miss.*'said'.*modality-dropout"):
        of.resampled(guided(1.0))
    with pytest.raises(ConfigError, match="did you mean 'said'"):
        policy(replace(CONFIGS[1], sampling=guided(1.0, names=("sad",))))
    for wrong in ({"guidance": 1.0, "guided": (Guided("said"),)}, {"guided": (Guided("said"), Guided("said", 2.0))}):
        with pytest.raises(ConfigError, match="each once"):
            Sampling(**wrong)
    with pytest.raises(ConfigError, match="finite guidance weights"):
        guided(float("nan"))


def test_draws_train_an_encoded_sample_at_several_noise_levels():
    one = policy(DiffusionConfig(SPEC, NET, replace(ENCODER, crop=None)))
    many = policy(replace(one.config, draws=3))
    batch = loader().batch(0)
    triple = type(batch)(
        {n: x.repeat(3, *[1] * (x.ndim - 1)) for n, x in batch.observations.items()},
        batch.actions.repeat(3, 1, 1),
        batch.valid.repeat(3, 1),
    )
    ours = many.loss(batch, generator=generator(0, "loss"))
    theirs = one.loss(triple, generator=generator(0, "loss"))
    assert ours.value.shape == (24,)
    assert len(set(ours.t.tolist())) == 24
    close(ours.value, theirs.value)
    with pytest.raises(ConfigError, match="draws"):
        replace(one.config, draws=0)


def test_statistics_of_batch_norm_are_those_of_the_training_in_every_copy():
    encoder = replace(ENCODER, vision=replace(VISION, norm="batch"))
    config = DiffusionConfig(SPEC, NET, encoder)
    weights = Weights(lambda: config.build(SCHEMA, SCALES), TrainConfig(ema_every=1), half=True)
    name = next(n for n, _ in weights.policy.named_buffers() if n.endswith("running_mean"))
    before = weights.ema.get_buffer(name).clone()
    for step in range(3):
        weights.worker.loss(loader().batch(step), generator=generator(0, "noise")).value.mean().backward()
        weights.step(rate=1e-3, grad_clip=1.0)
        weights.average(0.9)
    assert not torch.equal(weights.policy.get_buffer(name), before)
    assert torch.equal(weights.policy.get_buffer(name), weights.ema.get_buffer(name))
    first = next(m for m in weights.worker.modules() if isinstance(m, torch.nn.BatchNorm2d))
    close(first.running_mean, weights.policy.get_buffer(name))
    assert bool(weights.ema.get_buffer(name.replace("running_mean", "running_var")).gt(0).all())


def test_published_weights_are_read_once_by_all_copies(tmp_path):
    file = tmp_path / "resnet.safetensors"
    vision = ResNetConfig(widths=(16, 16), blocks=(1, 1), strides=(1, 2), stem="standard", norm="batch")
    torch.manual_seed(7)
    published = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in torchvision_state(vision.build(size=(32, 32))).items()
    }
    save_file(published, file)
    camera = Feature("camera", (32, 32, 3), kind="image", dtype="uint8")
    schema = Schema((camera,), Feature("action", (2,)))
    scales = Normalizer({"action": SCALES.affines["action"]})
    config = DiffusionConfig(SPEC, NET, EncoderConfig(vision=replace(vision, weights=str(file))))
    weights = Weights(lambda: config.build(schema, scales), TrainConfig(), half=True)
    weights.prepare()
    for copy in (weights.policy, weights.ema, weights.worker):
        own = copy.backbone.encoder.visions[0].backbone.state_dict()
        close(own["0.weight"].float(), published["conv1.weight"], rtol=1e-2, atol=1e-2)
        close(own["1.running_mean"].float(), published["bn1.running_mean"])
    file.unlink()
    assert build_from(weights.ema, config, schema, scales) is not None


def build_from(trained, config, schema, scales):
    """A policy from a checkpoint needs no file of published weights."""
    again = config.build(schema, scales)
    again.load_state_dict(trained.state_dict())
    return again


def test_a_loader_serves_images_and_texts_as_they_are():
    batch = loader().gather(torch.tensor([0, 13]))
    assert batch.observations["camera"].dtype == torch.uint8
    assert batch.observations["said"].dtype == torch.int64
    close(batch.observations["camera"][1, 1], torch.from_numpy(np.array(DATA.arrays["camera"][13])))
    close(batch.observations["p"][0, 0], SCALES.encode("p", torch.from_numpy(np.array(DATA.arrays["p"][0]))))


def test_what_is_said_may_change_its_form_and_counts_as_it_was_said_last():
    of = policy(CONFIGS[0])
    executor = Executor(of, [generator(0, "robot")])
    tick = {name: x[:1, 0].numpy() for name, x in history().items()}
    for _ in range(SPEC.stride):
        executor.act(tick)
    words = of.backbone.encoder.embed(["please go left"]).numpy()
    changed = executor.act({**tick, "said": words})
    assert executor.planned
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4], CONFIGS[5]])
@pytest.mark.parametrize(("name", "width"), [("p", 2), ("said", 16)])
def test_numbers_that_are_not_finite_are_named_before_anything_moves(config, name, width):
    with pytest.raises(SchemaError, match=f"'{name}'.*NaN or infinity"):
        plan(policy(config), {**history(), name: torch.full((3, 2, width), torch.nan)})


def test_an_empty_commitment_changes_nothing_whatever_the_sampler():
    for sampler in (DDIM(), Scheduler("ddim"), Scheduler("ddpm")):
        of = policy(CONFIGS[0]).resampled(Sampling(sampler, nfe=4, clip=0.2))
        none = of.plan(history(), history()["p"][:, :0], generator=generator(0, "plan"))
        assert torch.equal(none, of.plan(history(), generator=generator(0, "plan")))
