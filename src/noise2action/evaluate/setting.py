"""How the episodes of an evaluation differ from what their seeds draw: something said, something hidden."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.actions import Absolute
from ..errors import ConfigError, did_you_mean
from ..policies import AnyPolicy, backbone_of


@dataclass(frozen=True)
class Setting:
    """What is told to environments and policy in place of what the seeds draw; by default nothing."""

    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Handed to every `reset`."""
    given: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    """What the policy observes at every step, by feature, instead of what the environment shows."""
    hidden: tuple[str, ...] = ()
    """Features that the policy is not given."""

    def seen(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the policy is given of an environment's `observation`."""
        return {name: self.given.get(name, x) for name, x in observation.items() if name not in self.hidden}


AS_DRAWN = Setting()
"""Episodes as their seeds draw them."""


def setting_for(policy: AnyPolicy, *, say: str | None = None, hide: tuple[str, ...] = ()) -> Setting:
    """Return the setting in which every episode is told the sentence `say`, and the policy misses the features `hide`.

    Sentences that the policy was trained on are given by their position, others by their embedding. `ConfigError` for
    a policy that is told nothing in words or hears none of them, and for features that it cannot miss.
    """
    if say is None and not hide:
        return AS_DRAWN
    if say is not None and not say.strip():
        raise ConfigError(f"--say: expected words, got {say!r}: leave --say out for what the seeds draw")
    encoder = backbone_of(policy).encoder
    for name in hide:
        if name not in encoder.droppable:
            remedy = "separate several by spaces"
            if "," not in name:
                dropped = name if name in encoder.modalities else "NAME"
                remedy = f"train with --policy.encoder.modality-dropout 0.1 --policy.encoder.droppable {dropped}"
            raise ConfigError(
                f"--hide: expected a modality that the policy was trained to miss, got {name!r}: "
                f"{did_you_mean(name, encoder.droppable)}; {remedy}"
            )
    # All states together are one modality.
    states = [f.name for f in policy.schema.observations if f.is_state and not f.goal]
    hidden = tuple(feature for name in hide for feature in (states if name == "state" else [name]))
    space = policy.spec.action_space
    if not isinstance(space, Absolute) and space.reference in hidden:
        raise ConfigError(
            f"--hide: expected {space.reference!r} in sight, which the policy's actions refer to, got it hidden "
            f"({', '.join(hide)}): leave it out, or train with absolute actions"
        )
    if say is None:
        return Setting(hidden=hidden)
    texts = [f for f in policy.schema.observations if f.kind == "text"]
    if not texts:
        observed = [f.name for f in policy.schema.observations]
        raise ConfigError(f"expected a policy that is told something in words to say {say!r}, got one of {observed}")
    if all(f.name in hidden for f in texts):
        raise ConfigError(
            f"--say: expected a policy that hears {say!r}, got its words hidden ({', '.join(hide)}): leave --say or "
            "--hide out"
        )
    positions = {f.name: f.position(say) for f in texts}
    given = {
        name: encoder.embed([say])[0].numpy() if position is None else np.array([position])
        for name, position in positions.items()
    }
    return Setting({"instruction": say}, given, hidden)
