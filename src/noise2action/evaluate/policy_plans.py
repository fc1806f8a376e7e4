"""What a plan of a policy depends on, and what it is: its history and its generator, and a chunk of legal actions."""

import numpy as np
import torch
from torch import Tensor

from ..errors import Noise2ActionError
from ..policies import MixturePolicy, NearestPolicy, RegressionPolicy, SampledPolicy
from .findings import Broken, told, world
from .policy_subject import ROWS, Subject, settings

ROUNDING = 1e-3
"""Largest difference, as a share of the actions' range, between a plan alone and in a batch: matrix products of other
sizes add up in another order (1e-7 in float32), which the calls of a sampler and their derivatives magnify."""
UNITS = 0.1
"""How far, as a share of its width, a chunk may leave the range of actions: a regression is not bounded by it."""


def shape(subject: Subject) -> str:
    """Return the shape of a chunk."""
    spec, dim = subject.policy.spec, subject.policy.schema.action_dim
    for rows in (1, ROWS):
        chunk = subject.plan(subject.history("rest", rows=rows))
        expected = (rows, spec.horizon, dim)
        if not isinstance(chunk, Tensor) or tuple(chunk.shape) != expected or chunk.dtype != torch.float32:  # pyright: ignore[reportUnnecessaryIsInstance]
            got = f"{chunk.dtype} {tuple(chunk.shape)}" if isinstance(chunk, Tensor) else type(chunk).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Broken(
                f"expected plan to return float32 {expected} for {rows} histories, got {got}",
                "return [B, H, A]: as many rows as histories, spec.horizon actions, schema.action_dim numbers",
            )
    return f"{spec.horizon} actions of {dim} numbers"


def finite(subject: Subject) -> str:
    """Return where plans were made."""
    histories = {where: subject.history(where) for where in ("rest", "low", "high")}
    for where, history in {**histories, "drawn": subject.drawn}.items():
        if not bool(subject.plan(history).isfinite().all()):
            raise Broken(
                f"expected finite actions, got NaN or infinity for a history at {where}",
                "look for a division by a spread of zero, or a sampler that diverges: lower the guidance, or clip",
            )
    return "at rest, at both ends of the ranges, and in between"


def arguments(subject: Subject) -> str:
    """Return that a history is left as it is."""
    given = {name: x.clone() for name, x in subject.drawn.items()}
    with world(0):
        subject.policy.plan(given, generator=[torch.Generator().manual_seed(k) for k in range(ROWS)])
    if given.keys() != subject.drawn.keys() or not all(
        torch.equal(x, subject.drawn[name]) for name, x in given.items()
    ):
        raise Broken(
            "expected plan to leave the history as it is, got it changed", "work on copies, no x -= ..., no pop"
        )
    return ""


def stateless(subject: Subject) -> str:
    """Return that a plan does not remember other plans."""
    first = subject.plan(subject.drawn)
    for seed in subject.seeds:
        subject.plan(subject.history("drawn", seed=1 + seed), seed=1 + seed)
    if not torch.equal(first, subject.plan(subject.drawn)):
        raise Broken(
            "expected the same history and generators to give the same bits after other plans, got another chunk",
            "keep queues and last actions in an executor, draw from the generator only, call eval() before planning",
        )
    return f"the same bits after {len(subject.seeds)} other plans"


def global_state(subject: Subject) -> str:
    """Return that torch, numpy and Python are neither asked nor changed."""
    if not torch.equal(subject.plan(subject.drawn), subject.plan(subject.drawn, world_seed=1)):
        raise Broken(
            "expected plans that do not depend on global random numbers, got others under another torch.manual_seed",
            "pass generator= to every torch.randn and torch.rand",
        )
    with world(2):
        before = _random_numbers()
        subject.policy.plan(dict(subject.drawn), generator=[torch.Generator().manual_seed(k) for k in range(ROWS)])
        after = {**_random_numbers(), **settings()}
    found = {**before, **subject.settings}
    for name, value in found.items():
        if value != after[name]:
            raise Broken(f"expected plan to leave {name} as it is, got it changed", "set nothing global in plan")
    return ", ".join(found)


def _random_numbers() -> dict[str, object]:
    numpy = np.random.get_state(legacy=False)["state"]
    return {
        "torch's random numbers": torch.get_rng_state().numpy().tobytes(),
        "numpy's": (numpy["key"].tobytes(), numpy["pos"]),
    }


def batch(subject: Subject) -> str:
    """Return how far plans of a batch are from single ones."""
    together = subject.plan(subject.drawn)
    alone = [
        subject.plan({name: x[row : row + 1] for name, x in subject.drawn.items()}, rows=[row]) for row in range(ROWS)
    ]
    distance = float((together - torch.cat(alone)).abs().max()) / (subject.scale or 1.0)
    if not distance <= ROUNDING:
        raise Broken(
            f"expected {ROWS} plans at once to be {ROWS} single ones up to rounding ({ROUNDING:g} of the range), got "
            f"{distance:.2g}",
            "let no row see another: no statistics over the batch, one generator a row (seeds.randn_like)",
        )
    return f"{distance:.1e} of the actions' range apart, {ROUNDING:g} is rounding"


def seeds(subject: Subject) -> str:
    """Return whether the generator has a say; it must in a policy that samples, and must not in a regression."""
    differ = bool((subject.plans != subject.plans[:1]).any())
    policy = subject.policy
    if isinstance(policy, SampledPolicy) and not differ:
        raise Broken(
            f"expected other noise to give other plans, got the same one {len(subject.seeds)} times",
            "train it: an untrained network, or guidance that is far too large, leaves nothing of the noise",
        )
    mode = isinstance(policy, MixturePolicy) and policy.config.take == "mode"
    if differ and (mode or isinstance(policy, RegressionPolicy | NearestPolicy)):
        raise Broken(
            "expected plans without noise, got another one a seed", "call eval(): dropout must not act in plan"
        )
    return "another plan a seed" if differ else "the same plan for every seed"


def committed(subject: Subject) -> str:
    """Return how near the committed actions are kept."""
    horizon = subject.policy.spec.horizon
    other = subject.plan(subject.drawn, seed=1 + max(subject.seeds))
    worst = 0.0
    for count in sorted({1, max(1, horizon // 2), horizon}):
        try:
            chunk = subject.plan(subject.drawn, committed=other[:, :count].clone())
        except NotImplementedError:
            return "not supported"
        worst = max(worst, float((chunk[:, :count] - other[:, :count]).abs().max()) / (subject.scale or 1.0))
    if not worst <= ROUNDING:
        raise Broken(
            f"expected the committed actions at the chunk's start, got them {worst:.2g} of the range away",
            "pin them while sampling, or put them back with PolicySpec.keeping",
        )
    return f"{worst:.1e} of the actions' range apart"


def action_range(subject: Subject) -> str:
    """Return how often plans leave the range of actions, and how often they lie at its ends."""
    known = subject.action_range
    if known is None:
        return "neither the schema nor the normaliser states a range"
    (low, high), chunks = known, subject.plans
    width = high - low
    far = ((chunks < low - UNITS * width) | (chunks > high + UNITS * width)).float().mean()
    if float(far) > 0.5:
        raise Broken(
            f"expected actions in {float(low.min()):g}..{float(high.max()):g}, got {far:.0%} of them outside, "
            f"{float(chunks.min()):.3g}..{float(chunks.max()):.3g}",
            "return robot units: decode what is normalised, and look at angles and at the action space",
        )
    outside = ((chunks < low - 1e-3 * width) | (chunks > high + 1e-3 * width)).float().mean()
    at_ends = ((chunks - low).abs().minimum((chunks - high).abs()) <= 1e-3 * width).float().mean()
    return f"{at_ends:.0%} of the numbers lie at the ends, {outside:.0%} outside"


def missing(subject: Subject) -> str:
    """Return what may be missing; for the rest there must be an error that names it."""
    may, encoder = list[str](), subject.encoder
    droppable = None if encoder is None else encoder.droppable
    for name, features in _modalities(subject).items():
        history = {key: x for key, x in subject.drawn.items() if key not in features}
        try:
            chunk = subject.plan(history, rows=range(ROWS)) if history else None
        except Noise2ActionError as error:
            if not any(feature in str(error) for feature in features):
                raise Broken(f"expected an error that names {name!r}, got {told(error)}", "name it") from error
            if droppable is not None and name in droppable:
                raise Broken(
                    f"expected plans without {name!r}, got {told(error)}", "train with dropout of it"
                ) from error
            continue
        if chunk is None:
            continue
        if not bool(chunk.isfinite().all()) or (droppable is not None and name not in droppable):
            raise Broken(
                f"expected an error without {name!r}, which the policy was not trained to miss, got a plan",
                "refuse it in plan (ObservationEncoder.check), or train with encoder.modality_dropout",
            )
        may.append(name)
    return f"may be missing: {', '.join(may)}" if may else "nothing may be missing; the error names what is"


def _modalities(subject: Subject) -> dict[str, tuple[str, ...]]:
    """Return the features of every modality by its name."""
    observed = subject.policy.schema.observations
    if subject.encoder is None:
        return {f.name: (f.name,) for f in observed}
    states = tuple(f.name for f in observed if f.is_state and not f.goal)
    return {name: states if name == "state" else (name,) for name in subject.encoder.modalities}
