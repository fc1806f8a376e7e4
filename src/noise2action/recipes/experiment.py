"""An experiment: one frozen value that says what is trained on what, and how it is evaluated."""

from dataclasses import dataclass, field

from ..control.ensemble import check_decay
from ..data.augment import Mirror, ObservationNoise, Retarget
from ..data.normalize import NormalizerKind
from ..errors import ConfigError, first_wrong
from ..policies import AnyPolicyConfig, DiffusionConfig, LatentDiffusionConfig
from ..train.config import TrainConfig


@dataclass(frozen=True)
class Column:
    """Where a feature of the task lies in a data set that names or packs its arrays differently."""

    feature: str
    """Feature of the task."""
    source: str
    """Array of the data set."""
    start: int
    """First element of its last axis."""
    stop: int
    """One past the last element."""


@dataclass(frozen=True)
class DataConfig:
    """Demonstrations, and how they become training windows."""

    path: str | None = None
    """Data set (.zarr, .zarr.zip, .npz, .episodes, or a folder with one); null demonstrates the task in simulation."""
    columns: tuple[Column, ...] = ()
    """Where the features lie, for data sets that do not name them as the task does."""
    demonstrations: int = 200
    """Successful demonstrations to simulate where there is no path."""
    held_out: float = 0.05
    """Fraction of the episodes kept for validation."""
    observations: NormalizerKind = "limits"
    """Normaliser of vector observations (angles become cosine and sine)."""
    actions: NormalizerKind = "limits"
    """Normaliser of actions."""
    retarget: Retarget | None = None
    """Pose that demonstrations were meant to reach; training episodes are moved rigidly to end there."""
    mirror: Mirror | None = None
    """Reflection under which the task is unchanged; doubles the training episodes."""
    noise: ObservationNoise | None = None
    """Noise on training observations."""

    def __post_init__(self) -> None:
        """Reject numbers that leave nothing to train on."""
        if wrong := first_wrong(self, demonstrations=self.demonstrations >= 2, held_out=0 < self.held_out < 1):
            raise ConfigError(f"data: expected demonstrations >= 2 and held_out in (0, 1), got {wrong}")


@dataclass(frozen=True)
class EvaluateConfig:
    """Rollouts in simulation."""

    episodes: int = 100
    """Episodes, one seed each."""
    seed: int = 0
    """First seed; the others follow."""
    workers: int = 0
    """Processes that share the episodes; 0 is one a core."""
    record: int = 4
    """Episodes whose video is kept."""
    ensemble: float | None = None
    """Decay m of a temporal ensemble (0.01 is usual): plan every tick, average chunks with weights exp(-m i), oldest
    first. Null executes `stride` actions of a chunk, then plans again."""

    def __post_init__(self) -> None:
        """Reject empty evaluations."""
        if wrong := first_wrong(
            self,
            episodes=self.episodes >= 1,
            seed=self.seed >= 0,
            workers=0 <= self.workers <= 256,
            record=self.record >= 0,
        ):
            raise ConfigError(f"evaluate: expected episodes >= 1, seed, workers (<= 256), record >= 0, got {wrong}")
        if self.ensemble is not None:
            check_decay(self.ensemble)


@dataclass(frozen=True)
class Experiment:
    """Everything that a run is made of."""

    task: str
    """Task that the policy observes and acts in."""
    policy: AnyPolicyConfig = field(default_factory=DiffusionConfig)
    """What is trained."""
    data: DataConfig = field(default_factory=DataConfig)
    """Demonstrations."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimiser and budget."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Rollouts."""
    seed: int = 0
    """Seed of weights, batch order, noise, split and simulated demonstrations."""

    def __post_init__(self) -> None:
        """Reject a negative seed, and a clip in units that the normalised actions do not have."""
        if self.seed < 0:
            raise ConfigError(f"expected a seed >= 0, got {self.seed}")
        policy = self.policy
        bound = policy.sampling.clip if isinstance(policy, DiffusionConfig | LatentDiffusionConfig) else None
        if bound is not None and bound <= 1 and self.data.actions != "limits":
            raise ConfigError(
                f"expected policy.sampling.clip null or larger with data.actions={self.data.actions} (they are not "
                f"bounded by 1), got {bound}"
            )
