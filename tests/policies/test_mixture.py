import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from noise2action.config import decode, encode
from noise2action.data.windows import Batch
from noise2action.errors import ConfigError, ShapeError
from noise2action.nets import UNet1dConfig
from noise2action.policies import MixtureConfig, PolicySpec, RegressionConfig, checkpoint
from noise2action.policies.mixture import ChunkMixture
from noise2action.recipes import find
from noise2action.recipes.experiment import Experiment
from noise2action.seeds import generator
from noise2action.train.config import TrainConfig
from noise2action.train.loop import fit
from small_policies import NET, SCHEMA, SPEC, build, episodes, history, job, normalizer

close = torch.testing.assert_close
ONE_STEP = PolicySpec(obs_steps=2, horizon=1, stride=1, control_hz=10.0)


def mixture(batch=3, components=4, horizon=5, dim=2, seed=0):
    g = generator(seed)
    shape = (batch, components, horizon, dim)
    log_weights = torch.randn(batch, components, generator=g).log_softmax(1)
    return ChunkMixture(log_weights, torch.randn(shape, generator=g), 0.1 + torch.rand(shape, generator=g))


def as_distribution(m, *, steps=None):
    return MixtureSameFamily(
        Categorical(logits=m.log_weights), Independent(Normal(m.means[:, :, :steps], m.stds[:, :, :steps]), 2)
    )


def two_ways(horizon):
    """Return a batch in which every observation has two right answers: a steady chunk to the left or the right."""
    spec = PolicySpec(obs_steps=2, horizon=horizon, stride=1, control_hz=10.0)
    seen = job(RegressionConfig(spec=spec, net=NET)).training.batch(0).observations
    side = torch.where(torch.arange(16) % 2 == 0, 0.7, -0.7).reshape(16, 1, 1)
    actions = torch.cat([side.expand(16, horizon, 1), torch.full((16, horizon, 1), 0.4)], 2)
    return spec, Batch(seen, actions, torch.ones(16, horizon, dtype=torch.bool))


def trained(config, batch, *, steps=200):
    torch.manual_seed(0)
    policy = config.build(SCHEMA, normalizer(episodes()))
    g, optimizer = generator(0), torch.optim.Adam(policy.parameters(), lr=5e-3)
    for _ in range(steps):
        order = torch.randperm(len(batch), generator=g)  # which answer goes with an observation changes every step
        optimizer.zero_grad()
        policy.loss(Batch(batch.observations, batch.actions[order], batch.valid), generator=g).value.mean().backward()
        optimizer.step()
    return policy.eval()


def sideways(policy, n=64):
    """Return the first element of planned chunks [N, H], in normalised units."""
    plan = policy.plan(history(n, policy.spec), generator=[generator(k) for k in range(n)])
    return normalizer(episodes()).encode("action", plan)[..., 0]


def test_the_loss_is_the_likelihood_of_torch_distributions():
    policy, batch = build(MixtureConfig(spec=SPEC, net=NET)), job().training.batch(0)
    m = policy.mixture(policy.backbone.encoder(batch.observations))
    whole = Batch(batch.observations, batch.actions, torch.ones_like(batch.valid))
    expected = -as_distribution(m).log_prob(batch.actions) / batch.actions[0].numel()
    close(policy.loss(whole, generator=generator(0)).value, expected)


def test_padded_actions_are_integrated_out():
    m = mixture()
    chunk = torch.randn(3, 5, 2, generator=generator(1))
    valid = torch.tensor([True, True, True, False, False]).expand(3, 5)
    close(m.log_prob(chunk, valid), as_distribution(m, steps=3).log_prob(chunk[:, :3]))


def test_a_committed_beginning_is_conditioned_on_exactly():
    m = mixture()
    whole, there = torch.randn(3, 5, 2, generator=generator(1)), torch.ones(3, 5, dtype=torch.bool)
    conditional = m.given(whole[:, :2]).log_prob(whole, there & (torch.arange(5) >= 2))
    close(conditional, m.log_prob(whole, there) - m.log_prob(whole, there & (torch.arange(5) < 2)))


def test_draws_have_the_moments_of_the_mixture():
    m, n = mixture(batch=1, horizon=2), 40_000
    many = ChunkMixture(*(x.expand(n, *x.shape[1:]) for x in (m.log_weights, m.means, m.stds)))
    drawn, true = many.draw("sample", generator(0)), as_distribution(m)
    error = true.variance[0].sqrt() / n**0.5
    assert bool(((drawn.mean(0) - true.mean[0]).abs() < 4 * error).all())
    close(drawn.var(0), true.variance[0], rtol=0.05, atol=0)


def test_components_are_drawn_by_weight_and_the_mode_is_the_likeliest():
    m, n = mixture(batch=1), 40_000
    many = ChunkMixture(*(x.expand(n, *x.shape[1:]) for x in (m.log_weights, m.means, m.stds)))
    drawn = many.draw("component", generator(0))
    which = (drawn.unsqueeze(1) == many.means).flatten(2).all(2)
    assert bool(which.any(1).all())
    close(which.double().mean(0), m.log_weights[0].exp().double(), rtol=0, atol=0.01)
    close(m.draw("mode", None)[0], m.means[0, m.log_weights[0].argmax()])


@pytest.mark.unchecked
@pytest.mark.parametrize("horizon", [1, 8])
def test_a_mixture_finds_both_ways_where_regression_ends_between_them(horizon):
    spec, batch = two_ways(horizon)
    found = sideways(trained(MixtureConfig(spec=spec, net=NET), batch))
    near = torch.minimum((found - 0.7).abs(), (found + 0.7).abs()).amax(1) < 0.1
    assert float(near.double().mean()) > 0.95
    assert 0.3 < float((found[:, 0] > 0).double().mean()) < 0.7
    # A chunk goes one way from its first action to its last.
    assert bool(((found > 0).all(1) | (found < 0).all(1)).all())
    average = sideways(trained(RegressionConfig(spec=spec, net=NET), batch, steps=150))
    assert float(average.abs().max()) < 0.35


@pytest.mark.unchecked
def test_one_component_is_gaussian_cloning_and_learns_mean_and_spread():
    spec, batch = two_ways(1)
    policy = trained(MixtureConfig(spec=spec, net=NET, components=1), batch)
    with torch.no_grad():
        m = policy.mixture(policy.backbone.encoder(batch.observations))
    close(m.means[..., 0].mean(), torch.tensor(0.0), rtol=0, atol=0.1)
    close(m.stds[..., 0].mean(), torch.tensor(0.7), rtol=0, atol=0.1)
    close(m.stds[..., 1].mean(), torch.tensor(policy.config.min_std), rtol=0, atol=0.03)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "config",
    [
        MixtureConfig(spec=SPEC, net=NET),
        MixtureConfig(spec=ONE_STEP, net=NET, take="sample"),
        MixtureConfig(spec=SPEC, net=UNet1dConfig(widths=(8, 16), groups=4, time_dim=8), take="mode"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_in_the_loop_and_a_saved_policy_plans_as_before(tmp_path, config, precision):
    fit(job(config, train=TrainConfig(steps=3, precision=precision)), tmp_path)
    found = checkpoint.load(tmp_path)
    one, other = checkpoint.build(found), checkpoint.build(found)
    assert one.config == config
    plans = [p.plan(history(2, config.spec), generator=[generator(1), generator(2)]) for p in (one, other)]
    assert torch.equal(*plans)


def test_its_configuration_is_read_back_and_checked():
    deployed = checkpoint.Deployed("two_routes", MixtureConfig(spec=SPEC, net=NET, components=3, take="sample"), SCHEMA)
    body = encode(deployed)
    assert body["policy"]["kind"] == "mixture"
    assert decode(checkpoint.Deployed, body) == deployed
    # `--policy mixture` keeps the recipe's network and step conventions.
    recipe = find("two_routes")
    changed = decode(Experiment, {"policy": "mixture"}, default=recipe)
    assert changed.policy == MixtureConfig(recipe.policy.spec, recipe.policy.net)
    for wrong in ({"components": 0}, {"min_std": 0.0}):
        with pytest.raises(ConfigError, match="components in"):
            MixtureConfig(**wrong)
    with pytest.raises(ConfigError, match="did you mean 'mode'"):
        decode(MixtureConfig, {"take": "modes"})


def test_committed_actions_of_another_shape_are_refused():
    policy = build(MixtureConfig(spec=SPEC, net=NET))
    with pytest.raises(ShapeError, match="committed"):
        policy.plan(history(2), torch.zeros(2, 9, 2), generator=generator(0))
