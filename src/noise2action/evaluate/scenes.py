"""Rollouts and plans of a task as drawings in the plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.sampling import prior
from ..diffusion.tableau import Step
from ..envs import two_routes
from ..policies.diffusion import DiffusionPolicy
from ..seeds import generator
from .figures import Scene, Trajectory, integrate
from .rollouts import EpisodeResult


def two_routes_scene(*, one_goal: bool = True) -> Scene:
    """Return the post, start and goal of the task two_routes; without `one_goal` that of its variant of many goals."""
    (left, bottom), (right, top) = two_routes.WALLS.tolist()
    post, goal, start = (tuple(place.tolist()) for place in (two_routes.POST, two_routes.GOAL, two_routes.START))
    return Scene(
        low=(left, bottom),
        high=(right, top),
        unit="m",
        obstacles=((*post, two_routes.POST_RADIUS),),
        goal=(*goal, two_routes.GOAL_RADIUS) if one_goal else None,
        start=(start[0], start[1]),
    )


def trajectories(results: Sequence[EpisodeResult], *, position: str = "position") -> list[Trajectory]:
    """Return where each episode went: its observed `position` [T + 1, 2]; episodes without a trace are left out."""
    return [
        Trajectory(np.asarray(result.trace.observations[position], dtype=np.float64), result.route, result.success)
        for result in results
        if result.trace is not None
    ]


@dataclass(frozen=True)
class Denoising:
    """Chunks on their way from noise to a plan."""

    levels: tuple[float, ...]
    """Diffusion times, 1 (noise) to 0 (data)."""
    actions: Float[np.ndarray, "N k H A"]
    """Robot units; at high noise not executable."""

    def paths(self, start: Float[np.ndarray, " 2"], control_hz: float) -> Float[np.ndarray, "N k H1 2"]:
        """Return the way that the actions, taken as velocities, would go from `start`."""
        return integrate(self.actions[..., :2], start, control_hz)


def denoise_chunks(
    policy: DiffusionPolicy, observation: Mapping[str, np.ndarray], *, chunks: int = 12, columns: int = 5, seed: int = 0
) -> Denoising:
    """Return `chunks` samples for one `observation` (name -> per-step array) at up to `columns` noise levels."""
    history = {
        name: torch.as_tensor(value).expand(chunks, policy.spec.obs_steps, *np.shape(value)).clone()
        for name, value in observation.items()
    }
    steps: list[Step] = []
    policy.plan(history, generator=generator(seed, "denoising"), on_step=steps.append)
    with torch.no_grad():
        like = policy.backbone.chunk_like(policy.backbone.condition(history))
    objective = policy.config.objective
    first = prior(objective.path, like, start=objective.span[1], generator=generator(seed, "denoising"))
    states: list[tuple[float, Tensor]] = [(steps[0].t, first), *((step.s, step.x) for step in steps)]
    shown = [states[round(k)] for k in np.linspace(0, len(states) - 1, min(columns, len(states)))]
    with torch.no_grad():
        actions = torch.stack([policy.spec.commanded(policy.backbone.robot_actions(x), history) for _, x in shown])
    return Denoising(tuple(t for t, _ in shown), actions.cpu().numpy())
