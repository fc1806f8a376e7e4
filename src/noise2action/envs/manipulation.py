"""The manipulation tasks by name, seen as state or through cameras."""

from functools import partial

from .assembly import Assembly
from .grasp import Grasp
from .grasp_novel import GraspNovel
from .insert_peg import InsertPeg
from .open_drawer import OpenDrawer
from .post import GraspBehindPost, PushBehindPost
from .push_block import PushBlock
from .sawyer import CONTROL_HZ, Sawyer, seen
from .sawyer_driver import demonstrate, demonstrator
from .sawyer_stage import CAMERAS
from .task import Task, pictures

MANIPULATION: dict[str, type[Sawyer]] = {
    "grasp_seen": Grasp,
    "grasp_novel": GraspNovel,
    "push_block": PushBlock,
    "insert_peg": InsertPeg,
    "open_drawer": OpenDrawer,
    "assembly": Assembly,
    "grasp_seen_post": GraspBehindPost,
    "push_block_post": PushBehindPost,
}


def manipulation(name: str, view: str | None = None) -> Task:
    """Return the task `name`; with a `view` such as "table:96" or "table+gripperPOV" its pictures are observed.

    `TaskError` for an unknown camera or a size that is no number from 16 to 1024.
    """
    arm = MANIPULATION[name]
    if view is None:
        return Task(name, arm.schema, CONTROL_HZ, arm.max_steps, arm, demonstrator, partial(demonstrate, make=arm))
    cameras, size = pictures(f"{name}@{view}", CAMERAS)
    make = partial(arm, cameras=cameras, size=size)
    schema = seen(arm.schema, arm.told, cameras, size)
    return Task(
        f"{name}@{view}", schema, CONTROL_HZ, arm.max_steps, make, demonstrator, partial(demonstrate, make=make)
    )
