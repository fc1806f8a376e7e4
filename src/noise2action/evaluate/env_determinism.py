"""Whether an episode of an environment is fixed by its seed and its actions, to the bit, and by nothing else."""

from .env_subject import Subject
from .findings import Broken, world
from .played import Played, advance, begin, difference, play, unlike

LARGE = 2**62 + 1
"""A seed as this project derives them."""


def same_seed(subject: Subject) -> str:
    """Return that a seed gives its layout again after other episodes."""
    for seed in subject.seeds[:2]:
        first = _start(subject, seed)
        for other in subject.seeds:
            subject.beginning(other)
        if (where := difference(first, _start(subject, seed))) is not None:
            raise Broken(
                f"expected reset(seed={seed}) to give what it gave before other episodes, got another {where}",
                "super().reset(seed=seed), draw the layout from self.np_random only, and set every attribute anew",
            )
    return "layout, observation and picture, after other episodes"


def other_seeds(subject: Subject) -> str:
    """Return how many layouts the seeds have."""
    starts = [_start(subject, seed) for seed in (*subject.seeds, LARGE)]
    distinct = [a for n, a in enumerate(starts) if not any(difference(a, b) is None for b in starts[:n])]
    if len(distinct) == 1:
        raise Broken(
            f"expected other seeds to give other layouts, got the same one {len(starts)} times",
            "draw the layout from self.np_random after super().reset(seed=seed)",
        )
    return f"{len(distinct)} layouts of {len(starts)} seeds"


def replay(subject: Subject) -> str:
    """Return how many steps the same actions gave again."""
    steps = 0
    for seed in subject.seeds[:2]:
        first = subject.beginning(seed, pictures=True)
        subject.beginning(subject.seeds[-1])
        if (where := difference(first, subject.beginning(seed, pictures=True))) is not None:
            raise Broken(
                f"expected the same seed and actions to give the same episode, got another {where}",
                "draw what happens in step from self.np_random too, and let no state outlive a reset",
            )
        steps += first.steps
    return f"{steps} steps, bit for bit"


def global_state(subject: Subject) -> str:
    """Return that the global generators of Python, numpy and torch have no say."""
    seed = subject.seeds[0]
    here, there = (subject.beginning(seed, world_seed=n) for n in (0, 1))
    if (where := difference(here, there)) is not None:
        raise Broken(
            f"expected episodes that do not depend on global random numbers, got another {where} under other ones",
            "self.np_random instead of np.random.*, random.* and torch.rand*",
        )
    return "random, np.random and torch seeded otherwise"


def second_instance(subject: Subject) -> str:
    """Return that another instance, played step by step beside this one, gives the same episode."""
    seed = subject.seeds[0]
    actions = subject.actions(seed)
    with world(0):
        here, there = begin(subject.env, seed), begin(subject.other, seed)
        for action in actions:
            if here.ended or there.ended:
                break
            advance(subject.env, here, action)
            advance(subject.other, there, action)
    alone = play(subject.env, seed, actions)
    if (where := difference(alone, here) or difference(alone, there)) is not None:
        raise Broken(
            f"expected a second instance to give the same episode, got another {where}",
            "keep state in self, not in the class or the module, and seed all of it in reset",
        )
    return "step by step beside the first"


def own_arrays(subject: Subject) -> str:
    """Return that observations belong to whoever gets them."""
    seed = subject.seeds[0]
    actions = subject.actions(seed)
    episode = play(subject.env, seed, actions)
    for step, (given, then) in enumerate(zip(episode.returned, episode.observations, strict=True)):
        if (name := unlike(given, then)) is not None:
            raise Broken(
                f"expected observations that stay as they were, got {name!r} of step {step} changed by later ones",
                "return copies, array.copy()",
            )
    if (where := difference(episode, play(subject.env, seed, actions, spoil=True))) is not None:
        raise Broken(
            f"expected observations to be the caller's to overwrite, got another {where}",
            "return copies of the environment's own arrays, array.copy()",
        )
    return f"{len(episode.observations)} observations"


def _start(subject: Subject, seed: int) -> Played:
    """Return the reset alone: what is observed, and the picture."""
    return play(subject.env, seed, (), pictures=True)
