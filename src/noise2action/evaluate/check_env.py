"""Whether an environment keeps the contract that demonstrations, rollouts and paired comparisons rest on.

What its methods may take and return is Gymnasium's own checker's to say, which is asked. The rest is what this project
adds: an episode is fixed by its seed to the bit, observations are what a schema can say, and `info` tells success.
"""

from collections.abc import Callable, Sequence

from .env_determinism import global_state, other_seeds, own_arrays, replay, same_seed, second_instance
from .env_subject import Subject
from .env_values import (
    action_limits,
    action_space,
    actions_kept,
    actions_nan,
    actions_outside,
    actions_shape,
    again,
    closed,
    constructed,
    info,
    interface,
    observation_space,
    observations,
    pictures,
    success,
    truncation,
)
from .findings import Check, Finding, OnCheck, examine, world
from .played import AnyEnv

SEEDS = tuple(range(5))
STEPS = 1000

_RUNS = ("interface",)
_LEGAL = ("interface", "action limits")
_MEND = "mend the error: every check plays episodes of random legal actions"

CHECKS: tuple[Check[Subject], ...] = (
    Check("construct", constructed, "make it work without arguments: give every parameter a default"),
    Check("action space", action_space, _MEND, ("construct",)),
    Check("interface", interface, _MEND, ("action space",)),
    Check("observation space", observation_space, _MEND, ("construct",)),
    Check("action limits", action_limits, _MEND, ("action space",)),
    Check("reset", again, "reset must work at any time: before, in the middle of and after an episode", _RUNS),
    Check("observations", observations, _MEND, ("reset",)),
    Check("same seed", same_seed, _MEND, ("reset",)),
    Check("replay", replay, _MEND, ("same seed",)),
    Check("global state", global_state, _MEND, ("replay",)),
    Check(
        "other seeds", other_seeds, "take any whole number as a seed: super().reset(seed=seed) does", ("global state",)
    ),
    Check("second instance", second_instance, "let several instances live in one process", ("global state",)),
    Check("own arrays", own_arrays, "return copies of the environment's own arrays, array.copy()", ("replay",)),
    Check("action outside", actions_outside, _MEND, (*_LEGAL, "replay")),
    Check("action NaN", actions_nan, _MEND, (*_LEGAL, "observations")),
    Check("action shape", actions_shape, _MEND, _LEGAL),
    Check("action kept", actions_kept, _MEND, _LEGAL),
    Check("info", info, _MEND, ("reset",)),
    Check("success", success, _MEND, ("info",)),
    Check("end", truncation, _MEND, ("reset",)),
    Check("render", pictures, "render() must draw without a display", ("replay",)),
    Check("close", closed, "close() must work, and do nothing the second time", _RUNS),
)
"""In the order in which they are run."""


def check_env(
    env_factory: Callable[[], AnyEnv],
    *,
    seeds: Sequence[int] = SEEDS,
    steps: int = STEPS,
    on_check: OnCheck | None = None,
) -> list[Finding]:
    """Return what breaks the contract, nothing where `env_factory()`, an environment, keeps it.

    `seeds`, two or more, are the episodes that are looked at, `steps` the number within which an episode must end.
    `on_check` is called with every check as it ends. The factory is asked for two environments, which are closed again.
    """
    if len(set(seeds)) < 2 or steps < 1:
        raise ValueError(f"expected two seeds and one step at least, got {list(seeds)} and {steps}")
    subject = Subject(env_factory, tuple(seeds), steps)
    try:
        with world(0):
            return examine(subject, CHECKS, on_check=on_check)
    finally:
        subject.close()
