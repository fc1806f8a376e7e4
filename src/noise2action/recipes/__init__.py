"""Recipes: functions that return an `Experiment`, one file a task."""

from collections.abc import Callable

from ..errors import ConfigError, did_you_mean
from .experiment import Experiment
from .pusht_image import pusht_image
from .pusht_state import pusht_state
from .two_routes import two_routes

RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe.__name__: recipe for recipe in (two_routes, pusht_state, pusht_image)
}
"""Every recipe by name."""


def find(name: str) -> Experiment:
    """Return the experiment of the recipe `name`; `ConfigError` with the known names if there is none."""
    if name not in RECIPES:
        raise ConfigError(f"expected a recipe, got {name!r}: {did_you_mean(name, RECIPES)}")
    return RECIPES[name]()
