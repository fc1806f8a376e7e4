"""The table of tasks: what each observes and commands, how long it lasts, and who demonstrates it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..errors import TaskError, did_you_mean
from ..schema import Schema
from . import gentle_firm, pusht, pusht_planner, two_routes, two_routes_goal, two_routes_text
from .episode import Demonstration, Env

__all__ = ["TASKS", "Demonstration", "Task", "find"]


@dataclass(frozen=True)
class Task:
    """A simulated task and its demonstrator."""

    name: str
    schema: Schema
    control_hz: float
    """Actions a second."""
    max_steps: int
    """Actions after which an episode is cut off."""
    make: Callable[[], Env]
    """A fresh environment; `MissingExtraError` where the simulator is not installed."""
    demonstrate: Callable[[int], Demonstration]
    """One demonstrated episode, layout and demonstrator's choices fixed by the seed; it may have failed."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "two_routes",
            two_routes.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes.TwoRoutes,
            two_routes.demonstrate,
        ),
        Task(
            "pusht_image",
            pusht.IMAGE_SCHEMA,
            pusht.CONTROL_HZ,
            pusht.MAX_STEPS,
            pusht.PushTImage,
            partial(pusht_planner.demonstrate, make=pusht.PushTImage),
        ),
        Task(
            "two_routes_goal",
            two_routes_goal.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes_goal.make,
            two_routes_goal.demonstrate,
        ),
        Task(
            "two_routes_text",
            two_routes_text.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes_text.make,
            two_routes_text.demonstrate,
        ),
        Task(
            "gentle_firm",
            gentle_firm.SCHEMA,
            gentle_firm.CONTROL_HZ,
            gentle_firm.MAX_STEPS,
            gentle_firm.GentleFirm,
            gentle_firm.demonstrate,
        ),
        Task("pusht", pusht.SCHEMA, pusht.CONTROL_HZ, pusht.MAX_STEPS, pusht.PushT, pusht_planner.demonstrate),
    )
}


def find(name: str) -> Task:
    """Return the task called `name`; `TaskError` with the known names if there is none."""
    if name not in TASKS:
        raise TaskError(f"expected a task, got {name!r}: {did_you_mean(name, TASKS)}")
    return TASKS[name]
