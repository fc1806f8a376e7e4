"""Small policies on synthetic data, for tests."""

import numpy as np
import torch

from noise2action.data.episodes import Episodes
from noise2action.data.loader import Loader
from noise2action.data.normalize import Normalizer
from noise2action.data.windows import Windows
from noise2action.nets import MLPConfig
from noise2action.policies import AnyPolicyConfig, DiffusionConfig, PolicySpec
from noise2action.policies.checkpoint import Deployed
from noise2action.schema import Feature, Schema
from noise2action.train.config import TrainConfig
from noise2action.train.loop import Job

SCHEMA = Schema(
    observations=(Feature("position", (2,), unit="m"), Feature("heading", (1,), kind="angle", unit="rad")),
    action=Feature("action", (2,), unit="m/s"),
)
SPEC = PolicySpec(obs_steps=2, horizon=8, stride=4, control_hz=10.0)
NET = MLPConfig(width=32, blocks=2, condition_width=16, time_dim=16)


def episodes(count: int = 6, length: int = 20, seed: int = 0) -> Episodes:
    rng = np.random.default_rng(seed)
    return Episodes.concatenate(
        {
            "position": rng.normal(size=(length, 2)).astype(np.float32),
            "heading": rng.uniform(0, 6.28, size=(length, 1)).astype(np.float32),
            "action": rng.normal(size=(length, 2)).astype(np.float32) * 3 + 1,
        }
        for _ in range(count)
    )


def normalizer(data: Episodes) -> Normalizer:
    return Normalizer.fit(data.arrays, {"position": "limits", "heading": "identity", "action": "limits"})


def job(
    policy: AnyPolicyConfig | None = None, *, train: TrainConfig | None = None, seed: int = 0, held_out: bool = True
) -> Job:
    policy = policy or DiffusionConfig(spec=SPEC, net=NET)
    spec, data = policy.spec, episodes()
    scales = normalizer(data)

    def loader(part: Episodes) -> Loader:
        windows = Windows(part.ends, spec.obs_steps, spec.horizon, spec.first_action)
        return Loader(part, windows, scales, batch_size=16, seed=seed)

    return Job(
        Deployed("two_routes", policy, SCHEMA),
        train or TrainConfig(steps=30, precision="fp32", log_every=5),
        scales,
        loader(data),
        loader(episodes(2, seed=1)) if held_out else None,
        seed,
    )


def history(batch: int, spec: PolicySpec = SPEC, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "position": torch.randn(batch, spec.obs_steps, 2, generator=g),
        "heading": torch.rand(batch, spec.obs_steps, 1, generator=g) * 6,
    }


def build(policy: AnyPolicyConfig):
    """Return the policy with random weights, the zero-initialised ones included."""
    torch.manual_seed(0)
    built = policy.build(SCHEMA, normalizer(episodes()))
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.05)
    return built.eval()
