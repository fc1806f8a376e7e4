"""A policy besides its plans: conventions, training, the way to the disk and back, and how long a plan takes."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor, nn

from ..data.actions import check_action_space
from ..data.windows import Batch
from ..errors import Noise2ActionError
from ..policies import AnyPolicy
from ..policies.checkpoint import Checkpoint, Deployed, build, load, save
from ..policies.policy import Policy, PolicySpec
from ..schema import Schema
from ..seeds import generator
from .findings import Broken, world
from .latency import measure_latency
from .policy_subject import Subject

BATCH = 8
ROUNDS = 25
"""Batches after which a parameter without a gradient has none: what stands for a hidden modality is rarely asked."""
CALLS = 20


def spec(subject: Subject) -> str:
    """Return the step conventions."""
    own, schema = subject.policy.spec, subject.policy.schema
    kept: list[tuple[object, type]] = [(subject.policy, Policy), (own, PolicySpec), (schema, Schema)]
    for value, kind in kept:
        if not isinstance(value, kind):
            raise Broken(
                f"expected a {kind.__name__}, got {type(value).__name__}",
                "a policy has spec, schema, loss and plan: see noise2action.policies.policy.Policy",
            )
    try:
        PolicySpec(**{field.name: getattr(own, field.name) for field in fields(PolicySpec)})
        check_action_space(own.action_space, schema)
    except Noise2ActionError as error:
        raise Broken(str(error), "correct spec: an executor indexes chunks by it") from error
    return f"{own.obs_steps} observed, {own.horizon} planned from tick {own.first_action}, {own.stride} executed"


def loss(subject: Subject) -> str:
    """Return how many parameters learn."""
    policy, noise = _trainable(subject), generator(0, "check", "loss")
    batch, names = _batch(subject), dict[str, nn.Parameter]()
    if isinstance(policy, nn.Module):
        names = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    idle = set(names)
    for _ in range(ROUNDS):
        try:
            with world(0), torch.enable_grad():
                values = policy.loss(batch, generator=noise).value
        except NotImplementedError:
            return "has no loss: it cannot be trained here"
        if not bool(values.isfinite().all()) or values.ndim != 1:
            raise Broken(
                f"expected a finite loss a sample [B], got {values.detach().ravel()[:4].tolist()} of shape "
                f"{tuple(values.shape)}",
                "look at divisions and logarithms; actions and observations are normalised, padding counts as nothing",
            )
        wanted = sorted(idle)
        if wanted and values.requires_grad:
            slopes = torch.autograd.grad(values.mean(), [names[name] for name in wanted], allow_unused=True)
            found = cast("Sequence[Tensor | None]", slopes)
            idle -= {name for name, g in zip(wanted, found, strict=True) if g is not None and bool((g != 0).any())}
        if not idle:
            break
    if idle:
        raise Broken(
            f"expected a gradient for every parameter, got none for {len(idle)} of {len(names)}: {min(idle)!r}",
            "remove what is not used, or make it a buffer (requires_grad=False); look for detach() and no_grad()",
        )
    return f"{len(names)} parameters learn" if names else "nothing learns"


def _trainable(subject: Subject) -> Policy:
    """Return a copy of the policy as it is trained, without zeros, through which nothing would flow."""
    policy = subject.policy
    if not isinstance(policy, nn.Module):
        return policy
    if isinstance(policy, get_args(AnyPolicy)) and subject.normalizer is not None:
        with world(0):
            own = policy.config.build(policy.schema, subject.normalizer)  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue, reportCallIssue]
        own.load_state_dict(policy.state_dict())
    else:
        own = copy.deepcopy(policy).requires_grad_(requires_grad=True)
    noise = generator(0, "check", "weights")
    with torch.no_grad():
        for p in own.parameters():
            if not bool(p.any()):
                p.copy_(0.02 * torch.randn(p.shape, generator=noise))
    trained = own.train()
    assert isinstance(trained, Policy)
    return trained


def _batch(subject: Subject) -> Batch:
    """Return a normalised batch with padded actions at its end."""
    spec, schema, scales = subject.policy.spec, subject.policy.schema, subject.normalizer
    seen = subject.history("drawn", rows=BATCH)
    if scales is not None:
        seen |= {f.name: scales.encode(f.name, seen[f.name]) for f in schema.observations if f.is_state}
    shape = (BATCH, spec.horizon, schema.action_dim)
    actions = 1.8 * torch.rand(shape, generator=generator(0, "check", "actions")) - 0.9
    valid = torch.ones(shape[:2], dtype=torch.bool)
    valid[-1, spec.horizon // 2 + 1 :] = False
    return Batch(seen, actions, valid)


def round_trip(subject: Subject) -> str:
    """Return that a policy read from the disk plans the same bits."""
    policy, scales = subject.policy, subject.normalizer
    if not isinstance(policy, get_args(AnyPolicy)) or scales is None:
        return "not one of this project's policies: it is not saved here"
    assert isinstance(policy, nn.Module)
    weights: dict[str, Tensor] = policy.state_dict()
    deployed = Deployed("check", policy.config, policy.schema)  # pyright: ignore[reportArgumentType]
    tensors = {"model": weights, "ema": weights, "optim": {}, "rng-rank0": {}, "normalizer": scales.state()}
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), Checkpoint(0, deployed, tensors, {}))
        with world(0):
            again = build(load(Path(folder)))
    if not torch.equal(Subject(again, subject.seeds).plan(subject.drawn), subject.plan(subject.drawn)):
        raise Broken(
            "expected the same plan after saving and loading, got another one",
            "register what plan reads as parameter or buffer, or make it a field of the configuration",
        )
    return "the same bits after saving and loading"


def latency(subject: Subject) -> str:
    """Return how long a plan takes beside the control period; judged by nobody, for it is this computer's."""
    own = subject.policy.spec
    observation = {name: x[0, -1].numpy() for name, x in subject.history("rest").items()}
    with world(0):
        took = measure_latency(subject.policy, observation, calls=CALLS).total
    period = 1000 * own.dt
    if took.p99 <= period:
        verdict = "fits"
    elif took.p50 <= own.stride * period:
        verdict = f"longer than a period, shorter than the {own.stride} actions of a plan: plan ahead, or fewer calls"
    else:
        verdict = "too slow for its control rate: fewer network calls, or a smaller network"
    return f"p50 {took.p50:.3g} ms, p99 {took.p99:.3g} ms of a period of {period:.3g} ms, one thread: {verdict}"
