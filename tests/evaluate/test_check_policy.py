"""Every policy of the project passes without a finding; a broken promise is found by the check of that promise."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from noise2action.diffusion.objective import Losses
from noise2action.encoders.fuse import EncoderConfig
from noise2action.errors import SchemaError
from noise2action.evaluate.check_policy import CHECKS, check_policy
from noise2action.evaluate.policy_subject import Subject
from noise2action.policies import (
    DiffusionConfig,
    DiffusionPolicy,
    LatentDiffusionConfig,
    MixtureConfig,
    NearestConfig,
    RegressionConfig,
    Sampling,
)
from noise2action.schema import Feature, Schema
from small_policies import NET, SCHEMA, SPEC, build, episodes, normalizer

FEW = Sampling(nfe=2)
MISSES = EncoderConfig(proprioception=(8,), modality_dropout=0.2)
PLAIN = DiffusionConfig(spec=SPEC, net=NET, sampling=FEW)
SOUND = {
    "diffusion": replace(PLAIN, encoder=MISSES, p_uncond=0.2),
    "latent": LatentDiffusionConfig(spec=SPEC, net=NET, sampling=FEW),
    "regression": RegressionConfig(spec=SPEC, net=NET),
    "mixture": MixtureConfig(spec=SPEC, net=NET),
    "nearest": NearestConfig(spec=SPEC, windows=3),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_policy_of_the_project_keeps_the_contract_and_stays_as_it_is(name):
    policy, seen = build(SOUND[name]), []
    before = copy.deepcopy(policy.state_dict())
    assert check_policy(policy, on_check=seen.append) == []
    assert [finding.check for finding in seen] == [check.name for check in CHECKS]
    assert {finding.level for finding in seen} == {"ok"}
    after = policy.state_dict()
    assert all(torch.equal(x, after[key]) for key, x in before.items())
    assert not policy.training


class Sound(nn.Module):
    """A policy of somebody else's: pulls to the origin, with noise; what is broken below is a method of its own."""

    def __init__(self):
        super().__init__()
        self.spec = SPEC
        self.schema = Schema(
            (Feature("position", (2,)), Feature("speed", (2,))), Feature("action", (2,), low=-4.0, high=4.0)
        )
        self.pull = nn.Parameter(torch.tensor(0.5))

    def loss(self, batch, *, generator):
        error = (batch.actions - self.wanted(batch.observations)) ** 2
        return Losses(error.mean((1, 2)), torch.ones(len(error)))

    def wanted(self, history):
        return (-self.pull * history["position"][:, -1:]).expand(-1, SPEC.horizon, 2)

    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        for name in ("position", "speed"):
            if name not in history:
                raise SchemaError(f"expected {name}")
        chunk = self.made(self.wanted(history).detach(), generator, history)
        return self.spec.keeping(committed, chunk)

    def made(self, wanted, generator, history):
        return wanted + torch.cat([0.1 * torch.randn(1, 1, 2, generator=g) for g in generator])


BROKEN = {}


def breaks(check):
    def register(made):
        BROKEN[made.__name__] = (check, made)
        return made

    return register


@breaks("spec")
class TooManyExecuted(Sound):
    def __init__(self):
        super().__init__()
        self.spec = copy.copy(SPEC)
        object.__setattr__(self.spec, "stride", SPEC.horizon + 1)


@breaks("spec")
class NoSpec(Sound):
    def __init__(self):
        super().__init__()
        self.spec = {"horizon": 8}


@breaks("plan")
class OneAction(Sound):
    def made(self, wanted, generator, history):
        return super().made(wanted, generator, history)[:, :1]


@breaks("plan")
class Double(Sound):
    def made(self, wanted, generator, history):
        return super().made(wanted, generator, history).double()


@breaks("finite")
class Divides(Sound):
    def made(self, wanted, generator, history):
        return super().made(wanted / history["position"].norm(dim=(1, 2), keepdim=True), generator, history)


@breaks("history kept")
class Mutates(Sound):
    def made(self, wanted, generator, history):
        chunk = super().made(wanted, generator, history)
        history["speed"] *= 0.5
        return chunk


@breaks("stateless")
class Remembers(Sound):
    last = 0.0

    def made(self, wanted, generator, history):
        chunk = super().made(wanted, generator, history) + 0.001 * self.last
        self.last = float(chunk.mean())
        return chunk


@breaks("stateless")
class DropsOut(Sound):
    def __init__(self):
        super().__init__()
        self.entropy = torch.Generator()
        self.entropy.seed()

    def made(self, wanted, generator, history):
        return super().made(wanted, generator, history) + 0.01 * torch.rand((), generator=self.entropy)


@breaks("global state")
class GlobalNoise(Sound):
    def made(self, wanted, generator, history):
        return wanted + 0.1 * torch.randn(len(wanted), 1, 2)


@breaks("global state")
class Threads(Sound):
    def made(self, wanted, generator, history):
        torch.set_num_threads(2)
        return super().made(wanted, generator, history)


@breaks("global state")
class Seeds(Sound):
    def made(self, wanted, generator, history):
        torch.manual_seed(0)
        return super().made(wanted, generator, history)


@breaks("batch")
class NormalisesTheBatch(Sound):
    def made(self, wanted, generator, history):
        return super().made(wanted - wanted.mean(0, keepdim=True), generator, history)


@breaks("batch")
class FirstGenerator(Sound):
    def made(self, wanted, generator, history):
        return wanted + 0.1 * torch.randn(len(wanted), 1, 2, generator=generator[0])


@breaks("committed")
class Ignores(Sound):
    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        return super().plan(history, generator=generator)


@breaks("range")
class Millimetres(Sound):
    def made(self, wanted, generator, history):
        return 1000 * super().made(wanted, generator, history)


@breaks("missing")
class NotAWord(Sound):
    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        history["speed"]
        return super().plan(history, committed, generator=generator)


@breaks("missing")
class NaNWithout(Sound):
    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        if "speed" not in history:
            return torch.full((len(history["position"]), SPEC.horizon, 2), torch.nan)
        return super().plan(history, committed, generator=generator)


@breaks("loss")
class Unused(Sound):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)


@breaks("loss")
class LogOfZero(Sound):
    def loss(self, batch, *, generator):
        losses = super().loss(batch, generator=generator)
        return replace(losses, value=(0 * losses.value).log())


@breaks("latency")
class Sleeps(Sound):
    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        if watch is not None:
            raise RuntimeError("no watch")
        return super().plan(history, committed, generator=generator)


class Forgetful(DiffusionPolicy):
    """What it plans with is neither a weight nor in its configuration."""

    offset = 0.0

    def plan(self, history, committed=None, **how):
        chunk = super().plan(history, committed, **how)
        return chunk if committed is not None else chunk + self.offset


@breaks("round trip")
def forgetful():
    policy = build(PLAIN)
    policy.__class__, policy.offset = Forgetful, 0.01
    return policy


@breaks("noise")
def deaf():
    return build(replace(PLAIN, sampling=Sampling(nfe=2, clip=1e-9)))


def test_a_policy_of_somebody_else_passes():
    assert check_policy(Sound()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found_by_its_own_check_and_no_other(name):
    check, make = BROKEN[name]
    threads = torch.get_num_threads()
    found = check_policy(make(), seeds=(0, 1))
    assert torch.get_num_threads() == threads
    assert [finding.check for finding in found] == [check], found
    assert found[0].message.startswith("expected")
    assert found[0].remedy


def test_every_check_has_a_policy_that_breaks_it():
    assert {check for check, _ in BROKEN.values()} == {check.name for check in CHECKS}


def test_histories_are_legal_and_reach_the_edges():
    observed = (
        Feature("here", (2,), low=-3.0, high=0.7),
        Feature("camera", (8, 8, 3), kind="image"),
        Feature("told", (1,), kind="text", sentences=("left", "right")),
    )
    policy = Sound()
    policy.schema = Schema(observed, SCHEMA.action)
    subject = Subject(policy, (0, 1))
    low, high, drawn = (subject.history(where, rows=3) for where in ("low", "high", "drawn"))
    assert (low["here"] == -3).all()
    assert (high["here"] == torch.tensor(0.7)).all()
    assert ((drawn["here"] >= -3) & (drawn["here"] <= 0.7)).all()
    assert (int(low["camera"].max()), int(high["camera"].min())) == (0, 255)
    assert (low["told"].dtype, int(high["told"].max())) == (torch.int64, 1)
    assert torch.equal(drawn["told"][:, 0], drawn["told"][:, -1])


def test_without_a_declared_range_the_edges_are_those_of_the_data():
    data = episodes()
    policy = build(SOUND["regression"])
    subject = Subject(policy, (0, 1))
    lowest = torch.from_numpy(data.arrays["position"].min(0))
    torch.testing.assert_close(subject.history("low")["position"][0, 0], lowest)
    low, high = subject.action_range
    torch.testing.assert_close(low, torch.from_numpy(data.arrays["action"].min(0)))
    torch.testing.assert_close(high, torch.from_numpy(data.arrays["action"].max(0)))
    assert normalizer(data).affines["action"].kind == "limits"
