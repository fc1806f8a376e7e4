"""Whether a policy keeps the contract that executors, paired rollouts and training rest on."""

from collections.abc import Sequence

from ..policies.policy import Policy
from .findings import Check, Finding, OnCheck, examine, world
from .policy_plans import (
    action_range,
    arguments,
    batch,
    committed,
    finite,
    global_state,
    missing,
    seeds,
    shape,
    stateless,
)
from .policy_subject import Subject, as_it_was
from .policy_weights import latency, loss, round_trip, spec

SEEDS = tuple(range(4))

_MEND = "mend the error: plan must take every legal history"
_PLANS = ("plan",)
_SAME = ("stateless",)

CHECKS: tuple[Check[Subject], ...] = (
    Check("spec", spec, "see noise2action.policies.policy.PolicySpec"),
    Check("plan", shape, _MEND, ("spec",)),
    Check("finite", finite, _MEND, _PLANS),
    Check("history kept", arguments, _MEND, _PLANS),
    Check("stateless", stateless, _MEND, ("finite", "history kept")),
    Check("global state", global_state, _MEND, _SAME),
    Check("batch", batch, "plan for one history and for many", ("global state",)),
    Check("noise", seeds, _MEND, ("global state",)),
    Check("committed", committed, "raise NotImplementedError where committed actions are not supported", ("batch",)),
    Check("range", action_range, _MEND, ("finite",)),
    Check("missing", missing, "raise SchemaError that names what is missing", _PLANS),
    Check("loss", loss, "loss(batch, generator=...) must take normalised batches", ("spec",)),
    Check("round trip", round_trip, "every weight must be in state_dict, the rest in the configuration", _SAME),
    Check("latency", latency, _MEND, _PLANS),
)
"""In the order in which they are run."""


def check_policy(policy: Policy, *, seeds: Sequence[int] = SEEDS, on_check: OnCheck | None = None) -> list[Finding]:
    """Return what breaks the contract, nothing where `policy` keeps it.

    Histories are made up inside the ranges that its schema and normaliser state; `seeds`, two or more, are those of the
    generators. `on_check` is called with every check as it ends. The policy itself is neither trained nor changed.
    """
    if len(set(seeds)) < 2:
        raise ValueError(f"expected two seeds at least, got {list(seeds)}")
    with world(0), as_it_was():
        return examine(Subject(policy, tuple(seeds)), CHECKS, on_check=on_check)
