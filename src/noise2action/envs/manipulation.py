"""The manipulation tasks by name, seen as state or through cameras."""

from functools import partial

from ..errors import TaskError
from .assembly import Assembly
from .grasp import Grasp
from .grasp_novel import GraspNovel
from .insert_peg import InsertPeg
from .open_drawer import OpenDrawer
from .post import GraspBehindPost, PushBehindPost
from .push_block import PushBlock
from .sawyer import CONTROL_HZ, Sawyer, check_cameras, seen
from .sawyer_driver import demonstrate, demonstrator
from .task import Task

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
SIZES = range(16, 1025)
"""Edges of a picture (pixels)."""
DEFAULT_SIZE = 96


def manipulation(name: str, view: str = "") -> Task:
    """Return the task `name`; with a `view` such as "table:96" or "table+gripperPOV" its pictures are observed.

    `TaskError` for an unknown camera or a size that is no number from 16 to 1024.
    """
    arm = MANIPULATION[name]
    if not view:
        return Task(name, arm.schema, CONTROL_HZ, arm.max_steps, arm, demonstrator, partial(demonstrate, make=arm))
    names, _, edge = view.partition(":")
    cameras = tuple(names.split("+"))
    check_cameras(cameras)
    if len(set(cameras)) != len(cameras):
        raise TaskError(f"expected each camera once, got {names!r}")
    if edge and not (edge.isdecimal() and int(edge) in SIZES):
        raise TaskError(f"expected a size of {SIZES[0]} to {SIZES[-1]} pixels after ':', got {edge!r}")
    size = int(edge) if edge else DEFAULT_SIZE
    make = partial(arm, cameras=cameras, size=size)
    schema = seen(arm.schema, arm.told, cameras, size)
    return Task(
        f"{name}@{view}", schema, CONTROL_HZ, arm.max_steps, make, demonstrator, partial(demonstrate, make=make)
    )
