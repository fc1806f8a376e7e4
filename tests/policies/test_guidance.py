"""Guided policies: the learned null, one batched call a step, and what training with them keeps."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from noise2action.condition import Condition
from noise2action.config import decode, encode
from noise2action.data.windows import Batch
from noise2action.diffusion.denoisers import clip
from noise2action.diffusion.objective import Diffusion
from noise2action.diffusion.sampling import sample
from noise2action.diffusion.times import LossSecondMoment
from noise2action.errors import ConfigError
from noise2action.policies import DiffusionConfig, Sampling
from noise2action.policies.checkpoint import build as built_from
from noise2action.policies.checkpoint import load
from noise2action.train.config import TrainConfig
from noise2action.train.loop import fit
from noise2action.train.weights import Weights
from small_policies import NET, SCHEMA, SPEC, build, history, job

PLAIN = DiffusionConfig(spec=SPEC, net=NET)
GUIDED = replace(PLAIN, p_uncond=0.25)
LEARNING = replace(GUIDED, objective=Diffusion(times=LossSecondMoment(buckets=3, history=2)))
close = torch.testing.assert_close


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def rows_of_plan(policy, seen: dict[str, Tensor]) -> tuple[Tensor, list[int]]:
    """Return a plan and the rows of every network call that it took."""
    rows: list[int] = []
    handle = policy.backbone.net.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    plan = policy.plan(seen, generator=seeds(1, 2, 3))
    handle.remove()
    return plan, rows


def test_a_policy_that_is_not_guided_has_the_weights_and_random_numbers_it_always_had() -> None:
    torch.manual_seed(0)
    plain = PLAIN.build(SCHEMA, job().normalizer)
    torch.manual_seed(0)
    guided = GUIDED.build(SCHEMA, job().normalizer)
    assert "null" not in plain.state_dict()
    assert guided.state_dict().keys() - plain.state_dict().keys() == {"null"}
    assert all(torch.equal(value, guided.state_dict()[name]) for name, value in plain.state_dict().items())
    batch = job().training.batch(0)
    condition = plain.backbone.encoder(batch.observations)
    expected = PLAIN.objective.loss(
        lambda x, t: plain.backbone(x, t, condition),
        batch.actions,
        generator=torch.Generator().manual_seed(4),
        valid=batch.valid,
    )
    assert torch.equal(plain.loss(batch, generator=torch.Generator().manual_seed(4)).value, expected.value)


def test_training_hides_the_observation_of_its_share_of_samples() -> None:
    policy = build(GUIDED).train()
    seen: list[Tensor] = []
    policy.backbone.net.register_forward_hook(lambda _, given, __: seen.append(given[2].vector))
    batch = job().training.batch(0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        policy.loss(batch, generator=generator)
    vectors = torch.cat(seen)
    hidden = (vectors == policy.null).all(1)
    told = policy.backbone.encoder(batch.observations).vector.repeat(200, 1)
    assert torch.equal(vectors[~hidden], told[~hidden])
    n = len(vectors)
    assert abs(hidden.double().mean().item() - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5


def test_the_null_is_learned() -> None:
    policy = build(GUIDED).train()
    policy.loss(job().training.batch(0), generator=torch.Generator().manual_seed(0)).value.mean().backward()
    assert policy.null.grad is not None
    assert bool((policy.null.grad != 0).any())


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.5, 4.0])
def test_a_guided_plan_is_its_formula_in_one_call_a_step(w: float) -> None:
    policy, seen = build(GUIDED), history(3)
    sampling = Sampling(nfe=5, guidance=w)
    guided, rows = rows_of_plan(policy.resampled(sampling), seen)
    assert rows == [6 if w not in (-1.0, 0.0) else 3] * 5

    condition = policy.backbone.condition(seen)
    null = Condition(policy.null.expand_as(condition.vector))
    told, untold = (
        policy.config.objective.denoiser(lambda x, t, c=c: policy.backbone(x, t, c)) for c in (condition, null)
    )

    def mixed(x: Tensor, t: Tensor) -> Tensor:
        return (1 + w) * told(x, t) - w * untold(x, t)

    with torch.no_grad():
        chunk = sample(
            clip(mixed),
            policy.config.objective.path,
            policy.backbone.chunk_like(condition),
            sampler=sampling.sampler,
            grid=sampling.grid,
            nfe=5,
            generator=seeds(1, 2, 3),
        )
    close(guided, policy.backbone.robot_actions(chunk), rtol=1e-4, atol=1e-4)


def test_minus_one_ignores_the_observation_and_nothing_is_the_plain_plan_bit_for_bit() -> None:
    policy = build(GUIDED)
    unconditional = policy.resampled(Sampling(guidance=-1.0))
    one, other = (unconditional.plan(history(3, seed=s), generator=seeds(1, 2, 3)) for s in (0, 1))
    assert torch.equal(one, other)
    plain = build(PLAIN)
    plain.load_state_dict({k: v for k, v in policy.state_dict().items() if k != "null"})
    expected = plain.plan(history(3), generator=seeds(1, 2, 3))
    assert torch.equal(policy.resampled(Sampling(guidance=0.0)).plan(history(3), generator=seeds(1, 2, 3)), expected)


def test_outside_the_interval_a_plan_calls_for_the_conditional_rows_only() -> None:
    policy = build(GUIDED)
    _, rows = rows_of_plan(policy.resampled(Sampling(nfe=8, guidance=2.0, guidance_interval=(0.3, 0.8))), history(3))
    # Trailing: t = 1, 7/8, 6/8, ..., 1/8; guided at 6/8, 5/8, 4/8 and 3/8.
    assert rows == [3, 3, 6, 6, 6, 6, 3, 3]


def test_guidance_keeps_what_is_committed() -> None:
    committed = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(5))
    policy = build(GUIDED).resampled(Sampling(guidance=3.0, guidance_rescale=0.7))
    plan = policy.plan(history(3), committed, generator=seeds(1, 2, 3))
    close(plan[:, :3], committed, rtol=0, atol=1e-5)
    assert bool(plan.isfinite().all())


def test_a_policy_that_descends_a_cost_plans_lower_in_robot_units() -> None:
    policy = build(GUIDED)
    seen, given = history(64), seeds(*range(64))
    costs: dict[float, float] = {}

    def height(chunk: Tensor) -> Tensor:
        return chunk[..., 1].mean(1)

    plain = policy.plan(seen, generator=given)
    for scale in (0.0, 0.5, 2.0):
        plan = policy.descending(height, scale=scale).plan(seen, generator=seeds(*range(64)))
        costs[scale] = height(plan).mean().item()
    assert costs[2.0] < costs[0.5] < costs[0.0]
    assert costs[0.0] == pytest.approx(height(plain).mean().item(), abs=1e-6)
    assert policy.slopes == ()
    assert torch.equal(policy.plan(seen, generator=seeds(*range(64))), plain)
    together = policy.resampled(Sampling(guidance=2.0)).descending(height)
    assert bool(together.plan(history(3), torch.zeros(3, 2, 2), generator=seeds(1, 2, 3)).isfinite().all())


def test_guidance_without_null_training_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"got guidance=2 on one without: train again with --policy.p-uncond 0.1"):
        build(PLAIN).resampled(Sampling(guidance=2.0))
    with pytest.raises(ConfigError, match="p_uncond > 0 to guide"):
        decode(DiffusionConfig, {"sampling": {"guidance": -1}})
    for p_uncond in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"expected p_uncond in \[0, 1\)"):
            replace(PLAIN, p_uncond=p_uncond)
    with pytest.raises(ConfigError, match="guidance interval"):
        Sampling(guidance=1.0, guidance_interval=(0.8, 0.2))


def test_configs_of_before_are_read_and_new_ones_come_back() -> None:
    old = encode(PLAIN, DiffusionConfig)
    del old["p_uncond"]
    for key in ("guidance", "guidance_interval", "guidance_rescale"):
        del old["sampling"][key]
    assert decode(DiffusionConfig, old) == PLAIN
    told = replace(LEARNING, sampling=Sampling(guidance=1.5, guidance_interval=(0.1, 0.9), guidance_rescale=0.5))
    assert decode(DiffusionConfig, encode(told, DiffusionConfig)) == told


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_learning_law_is_saved_with_the_policy_and_resumes_to_the_same_bits(tmp_path, precision, monkeypatch) -> None:
    train = TrainConfig(steps=12, precision=precision, log_every=5, save_steps=4, warmup_steps=2)
    fit(job(LEARNING, train=train), tmp_path / "whole")
    whole = load(tmp_path / "whole")
    memory = whole.tensors["model"]["memory"]
    assert memory.dtype == torch.float64
    assert memory[:, 0].sum() == 12 * 16  # every sample of every batch
    assert bool((memory[:, 1:] > 0).all())

    from noise2action.train import loop  # noqa: PLC0415

    original = loop._step

    def stop_at_8(state):
        if state.step == 8:
            raise KeyboardInterrupt
        return original(state)

    monkeypatch.setattr(loop, "_step", stop_at_8)
    with pytest.raises(KeyboardInterrupt):
        fit(job(LEARNING, train=train), tmp_path / "stopped")
    monkeypatch.undo()
    assert fit(job(LEARNING, train=train), tmp_path / "stopped", resume=True) is True
    resumed = load(tmp_path / "stopped")
    for part in ("model", "ema", "optim"):
        for name, value in whole.tensors[part].items():
            assert torch.equal(value, resumed.tensors[part][name]), name
    policy = built_from(resumed)
    assert bool(policy.plan(history(3), generator=seeds(1, 2, 3)).isfinite().all())


def test_the_working_copy_remembers_in_the_policy_that_is_saved() -> None:
    one = job(LEARNING)
    weights = Weights(lambda: LEARNING.build(SCHEMA, one.normalizer), TrainConfig(), half=True)
    weights.worker.loss(one.training.batch(0), generator=torch.Generator().manual_seed(0))
    assert weights.policy.memory[:, 0].sum() == 16
    assert weights.policy.memory.dtype == torch.float64
    assert next(weights.worker.parameters()).dtype == torch.bfloat16
    assert weights.policy.state_dict().keys() == weights.worker.state_dict().keys()


def test_validation_neither_learns_nor_depends_on_what_was_learned() -> None:
    batch = job().training.batch(0)
    policy, fresh = build(LEARNING), build(LEARNING)
    policy.memory.fill_(3.0)
    before = policy.memory.clone()
    values = [p.loss(batch, generator=torch.Generator().manual_seed(0)).value for p in (policy, fresh)]
    assert torch.equal(*values)
    assert torch.equal(policy.memory, before)


def test_padding_reaches_neither_a_guided_nor_a_learning_policy() -> None:
    batch = job().training.batch(0)
    valid = batch.valid.clone()
    valid[:, 5:] = False
    values = []
    for padding in (0.0, float("nan")):
        actions = torch.where(valid.unsqueeze(-1), batch.actions, padding)
        policy = build(LEARNING).train()
        losses = policy.loss(Batch(batch.observations, actions, valid), generator=torch.Generator().manual_seed(3))
        values.append(torch.cat([losses.value.detach(), policy.memory.flatten()]))
    assert torch.equal(*values)
