"""Recipes: functions that return an `Experiment`, one file a task."""

from collections.abc import Callable

from ..errors import ConfigError, did_you_mean
from .experiment import Experiment
from .gentle_firm import gentle_firm
from .manipulation import (
    assembly,
    grasp_novel,
    grasp_seen,
    grasp_seen_post,
    insert_peg,
    open_drawer,
    push_block,
    push_block_post,
)
from .maze import maze
from .obstacles import obstacles
from .pusht_image import pusht_image
from .pusht_state import pusht_state
from .pusht_state_transformer import pusht_state_transformer
from .pusht_state_unet import pusht_state_unet
from .two_routes import two_routes
from .two_routes_goal import two_routes_goal
from .two_routes_text import two_routes_text

RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe.__name__: recipe
    for recipe in (
        two_routes,
        two_routes_goal,
        two_routes_text,
        gentle_firm,
        maze,
        obstacles,
        pusht_state,
        pusht_state_unet,
        pusht_state_transformer,
        pusht_image,
        grasp_seen,
        grasp_novel,
        push_block,
        insert_peg,
        open_drawer,
        assembly,
        grasp_seen_post,
        push_block_post,
    )
}
"""Every recipe by name."""


def find(name: str) -> Experiment:
    """Return the experiment of the recipe `name`; `ConfigError` with the known names if there is none."""
    if name not in RECIPES:
        raise ConfigError(f"expected a recipe, got {name!r}: {did_you_mean(name, RECIPES)}")
    return RECIPES[name]()
