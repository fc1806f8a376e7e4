from dataclasses import replace

import pytest
import torch

from noise2action.data.windows import Batch
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.paths import Table, cosine_betas
from noise2action.diffusion.samplers import DDIM
from noise2action.errors import ConfigError, PathError, ShapeError
from noise2action.nets import UNet1dConfig
from noise2action.nets.autoencoder import MLPAutoencoderConfig
from noise2action.policies import Guided, Sampling, checkpoint
from noise2action.policies.latent import LatentDiffusionConfig
from noise2action.train.config import TrainConfig
from noise2action.train.loop import fit
from small_policies import NET, SPEC, build, history, job

CODES = MLPAutoencoderConfig(latent=(3, 2), width=16)
MLP = LatentDiffusionConfig(spec=SPEC, net=NET, autoencoder=CODES)
UNET = LatentDiffusionConfig(
    spec=SPEC, net=UNet1dConfig(widths=(8, 16), groups=4, time_dim=8), autoencoder=CODES, sampling=Sampling(clip=None)
)
CONFIGS = [MLP, UNET]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch():
    return job().training.batch(0)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_loss_is_reconstruction_plus_the_diffusion_of_codes(config, batch):
    policy, g = build(config), generator(3)
    losses = policy.loss(batch, generator=generator(3))
    actions = torch.where(batch.valid[..., None], batch.actions, 0.0)
    code, again = policy.autoencoder(actions, generator=g)
    condition = policy.codes.backbone.encoder(batch.observations)
    diffusion = config.objective.loss(lambda x, t: policy.codes.backbone(x, t, condition), code, generator=g)
    error = ((again - actions) ** 2 * batch.valid[..., None]).sum((1, 2)) / (2 * batch.valid.sum(1))
    close(losses.value, diffusion.value + error)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_plan_is_its_sampled_code_decoded(config):
    policy, seen = build(config), history(3)
    steps = []
    plan = policy.plan(seen, generator=[generator(k) for k in range(3)], on_step=steps.append)
    assert steps[-1].x.shape == (3, 3, 2)
    chunk = policy.autoencoder.decode(steps[-1].x)
    bound = config.sampling.clip
    expected = chunk if bound is None else chunk.clamp(-bound, bound)
    close(plan, policy.normalizer.decode("action", expected))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_plan_is_reproducible_and_does_not_depend_on_the_batch(config):
    policy, seen = build(config), history(3)
    together = policy.plan(seen, generator=[generator(k) for k in (1, 2, 3)])
    assert torch.equal(together, policy.plan(seen, generator=[generator(k) for k in (1, 2, 3)]))
    close(together[1:2], policy.plan({name: x[1:2] for name, x in seen.items()}, generator=[generator(2)]))


def test_committed_actions_are_put_back_and_change_nothing_else():
    policy, committed = build(MLP), torch.randn(3, 4, 2)
    seeds = (1, 2, 3)
    free = policy.plan(history(3), generator=[generator(k) for k in seeds])
    bound = policy.plan(history(3), committed, generator=[generator(k) for k in seeds])
    assert torch.equal(bound[:, :4], committed)
    assert torch.equal(bound[:, 4:], free[:, 4:])
    with pytest.raises(ShapeError, match="committed"):
        policy.plan(history(3), torch.zeros(3, 9, 2))


@pytest.mark.parametrize("fill", [1e3, float("nan")])
def test_what_padded_actions_hold_does_not_train(fill, batch):
    valid = batch.valid.clone()
    valid[:, 5:] = False

    def learnt(padding):
        policy, actions = build(MLP).train(), batch.actions.clone()
        actions[~valid] = padding
        value = policy.loss(Batch(batch.observations, actions, valid), generator=generator(3)).value
        value.mean().backward()
        return [value.detach(), *(p.grad for p in policy.parameters())]

    for one, other in zip(learnt(0.0), learnt(fill), strict=True):
        assert torch.equal(one, other)


def test_half_precision_weights_take_and_give_float32(batch):
    policy = build(MLP)
    expected = policy.loss(batch, generator=generator(3)).value
    found = policy.bfloat16().loss(batch, generator=generator(3)).value
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_resampled_policy_shares_weights_and_counts_its_calls():
    policy = build(MLP)
    other = policy.resampled(Sampling(DDIM(eta=1.0), nfe=3))
    calls = []
    other.codes.backbone.net.register_forward_hook(lambda *_: calls.append(1))
    other.plan(history(2), generator=[generator(1), generator(2)])
    assert len(calls) == 3
    assert next(other.parameters()) is next(policy.parameters())
    assert policy.config.sampling.nfe == 8


def test_a_modality_that_is_never_missed_cannot_guide():
    with pytest.raises(ConfigError, match="trained to miss to guide by, got 'position': known: none"):
        build(MLP).resampled(Sampling(guided=(Guided("position"),)))


def test_guidance_acts_on_codes():
    with pytest.raises(ConfigError, match="p_uncond"):
        replace(MLP, sampling=Sampling(guidance=1.0))
    policy, seeds = build(replace(MLP, p_uncond=0.5)), [generator(k) for k in range(3)]
    plain = policy.resampled(Sampling(guidance=0.0)).plan(history(3), generator=[generator(k) for k in range(3)])
    assert torch.equal(plain, policy.plan(history(3), generator=[generator(k) for k in range(3)]))
    ignoring = policy.resampled(Sampling(guidance=-1.0))
    one, other = (ignoring.plan(history(3, seed=s), generator=[generator(k) for k in range(3)]) for s in (0, 1))
    close(one, other)
    assert not torch.allclose(one, policy.plan(history(3), generator=seeds))


def test_a_saved_policy_plans_as_before(tmp_path):
    prepared = job(MLP, train=TrainConfig(steps=2, precision="fp32"))
    fit(prepared, tmp_path)
    loaded = checkpoint.build(checkpoint.load(tmp_path))
    again = checkpoint.build(checkpoint.load(tmp_path))
    assert loaded.config == MLP
    plans = [policy.plan(history(2), generator=[generator(1), generator(2)]) for policy in (loaded, again)]
    assert torch.equal(*plans)


@pytest.mark.unchecked
def test_two_ways_are_both_found_through_codes():
    """Each observation has two right answers, a steady chunk to the left or right: codes must not average them."""
    config = LatentDiffusionConfig(spec=SPEC, net=NET, autoencoder=CODES)
    torch.manual_seed(0)
    policy = build(config).train()
    g, optimizer = generator(0), torch.optim.Adam(policy.parameters(), lr=5e-3)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(2.0)
    seen = job().training.batch(0).observations
    side = torch.where(torch.arange(16) % 2 == 0, 0.7, -0.7).reshape(16, 1, 1)
    actions = torch.cat([side.expand(16, 8, 1), torch.full((16, 8, 1), 0.4)], 2)
    batch = Batch(seen, actions, torch.ones(16, 8, dtype=torch.bool))
    for _ in range(200):
        order = torch.randperm(16, generator=g)
        shuffled = Batch(seen, actions[order], batch.valid)
        optimizer.zero_grad()
        policy.loss(shuffled, generator=g).value.mean().backward()
        optimizer.step()
    plan = policy.eval().plan(history(64), generator=[generator(k) for k in range(64)])
    sideways = policy.normalizer.encode("action", plan)[..., 0].mean(1)
    near = torch.minimum((sideways - 0.7).abs(), (sideways + 0.7).abs()) < 0.2
    assert float(near.double().mean()) > 0.9
    assert 0.2 < float((sideways > 0).double().mean()) < 0.8


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="steps, dim"):
        LatentDiffusionConfig(autoencoder=MLPAutoencoderConfig(latent=(8,)))
    with pytest.raises(PathError, match="expected"):
        LatentDiffusionConfig(sampling=Sampling(nfe=20), objective=Diffusion(path=Table(cosine_betas(10))))
