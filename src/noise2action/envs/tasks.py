"""The table of tasks: what each observes and commands, how long it lasts, and who demonstrates it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..errors import TaskError, did_you_mean
from ..schema import Feature, Schema
from . import gentle_firm, maze, obstacles, pusht, pusht_planner, two_routes, two_routes_goal, two_routes_text
from .episode import Demonstration, Env
from .manipulation import MANIPULATION, manipulation
from .task import Task, pictures

__all__ = ["TASKS", "Demonstration", "Task", "find"]


@dataclass(frozen=True)
class Above:
    """A task that is seen by one camera above it."""

    camera: str
    told: tuple[str, ...]
    """What is observed besides the picture: no more than a robot and its instructions tell."""
    make: Callable[..., Env]
    """Takes the schema."""
    demonstrate: Callable[..., Demonstration]
    """Takes the seed and `make`."""


ABOVE = {
    "pusht": Above("image", ("agent_position",), pusht.PushT, pusht_planner.demonstrate),
    "maze": Above("top", ("position", "velocity", "goal"), maze.Maze, maze.demonstrate),
    "obstacles": Above("top", ("position", "velocity"), obstacles.Obstacles, obstacles.demonstrate),
    "two_routes": Above("top", ("position", "velocity"), two_routes.TwoRoutes, two_routes.demonstrate),
}


def _seen(task: Task, name: str) -> Task:
    """Return `task` as `name`, such as "maze@top:96", says that it is seen."""
    above = ABOVE[task.name]
    _, size = pictures(name, (above.camera,))
    image = Feature(above.camera, (size, size, 3), kind="image", dtype="uint8")
    told = (f for f in task.schema.observations if f.name in above.told)
    schema = Schema((image, *told), task.schema.action)
    make = partial(above.make, schema)
    return replace(task, name=name, schema=schema, make=make, demonstrate=partial(above.demonstrate, make=make))


PUSHT = Task(
    "pusht",
    pusht.SCHEMA,
    pusht.CONTROL_HZ,
    pusht.MAX_STEPS,
    pusht.PushT,
    pusht_planner.demonstrator,
    pusht_planner.demonstrate,
)

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
        replace(_seen(PUSHT, "pusht@image:96"), name="pusht_image"),
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
        PUSHT,
        *(manipulation(name) for name in MANIPULATION),
    )
}


def find(name: str) -> Task:
    """Return the task called `name`; `TaskError` with the known names if there is none.

    Some may be seen through cameras: "grasp_seen@table+gripperPOV:224", "maze@top:96", "pusht@image:224".
    """
    plain, at, view = name.partition("@")
    if plain not in TASKS:
        raise TaskError(f"expected a task, got {plain!r}: {did_you_mean(plain, TASKS)}")
    if not at:
        return TASKS[plain]
    if plain in MANIPULATION:
        return manipulation(plain, view)
    if plain not in ABOVE:
        known = did_you_mean(plain, [*ABOVE, *MANIPULATION])
        raise TaskError(f"expected a task with cameras before '@', got {plain!r}: {known}")
    return _seen(TASKS[plain], name)
