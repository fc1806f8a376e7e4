"""The table of tasks: what each observes and commands, how long it lasts, and who demonstrates it."""

from functools import partial

from ..errors import TaskError, did_you_mean
from . import gentle_firm, maze, obstacles, pusht, pusht_planner, two_routes, two_routes_goal, two_routes_text
from .episode import Demonstration
from .manipulation import MANIPULATION, manipulation
from .task import Task

__all__ = ["TASKS", "Demonstration", "Task", "find"]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "two_routes",
            two_routes.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes.TwoRoutes,
            two_routes.demonstrator,
            two_routes.demonstrate,
        ),
        Task(
            "pusht_image",
            pusht.IMAGE_SCHEMA,
            pusht.CONTROL_HZ,
            pusht.MAX_STEPS,
            pusht.PushTImage,
            pusht_planner.demonstrator,
            partial(pusht_planner.demonstrate, make=pusht.PushTImage),
        ),
        Task(
            "two_routes_goal",
            two_routes_goal.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes_goal.make,
            two_routes_goal.demonstrator,
            two_routes_goal.demonstrate,
        ),
        Task(
            "two_routes_text",
            two_routes_text.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            two_routes_text.make,
            two_routes_text.demonstrator,
            two_routes_text.demonstrate,
        ),
        Task(
            "gentle_firm",
            gentle_firm.SCHEMA,
            gentle_firm.CONTROL_HZ,
            gentle_firm.MAX_STEPS,
            gentle_firm.GentleFirm,
            gentle_firm.demonstrator,
            gentle_firm.demonstrate,
        ),
        Task("maze", maze.SCHEMA, maze.CONTROL_HZ, maze.MAX_STEPS, maze.Maze, maze.demonstrator, maze.demonstrate),
        Task(
            "obstacles",
            obstacles.SCHEMA,
            two_routes.CONTROL_HZ,
            two_routes.MAX_STEPS,
            obstacles.Obstacles,
            obstacles.demonstrator,
            obstacles.demonstrate,
        ),
        Task(
            "pusht",
            pusht.SCHEMA,
            pusht.CONTROL_HZ,
            pusht.MAX_STEPS,
            pusht.PushT,
            pusht_planner.demonstrator,
            pusht_planner.demonstrate,
        ),
        *(manipulation(name) for name in MANIPULATION),
    )
}


def find(name: str) -> Task:
    """Return the task called `name`; `TaskError` with the known names if there is none.

    Manipulation tasks may be seen through cameras: "grasp_seen@table:96", "grasp_seen@table+gripperPOV:224".
    """
    plain, at, view = name.partition("@")
    if plain not in TASKS:
        raise TaskError(f"expected a task, got {plain!r}: {did_you_mean(plain, TASKS)}")
    if not at:
        return TASKS[plain]
    if plain not in MANIPULATION:
        raise TaskError(f"expected a manipulation task before '@', got {plain!r}: {did_you_mean(plain, MANIPULATION)}")
    if not view:
        raise TaskError(f"expected a camera after '@', got {name!r}: write {plain}@table:96")
    return manipulation(plain, view)
