"""Tests run on one thread, reproducibly; those of single parts with shapes checked at run time."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import config as checks
from jaxtyping import install_import_hook

# A warning filter that names a class of the package imports it before this file is read, and so past the hook.
for name in [n for n in sys.modules if n.split(".")[0] == "noise2action"]:
    del sys.modules[name]
# Where shapes are written; simulated tasks have none, and would spend most of a step on the checks.
CHECKED = "commands compare condition control data diffusion encoders evaluate generative nets policies studies train"
install_import_hook([f"noise2action.{name}" for name in CHECKED.split()], "beartype.beartype")

torch.set_num_threads(1)
settings.register_profile("fast", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("fast")

DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Make an unexpected terminal-SNR warning an error; by its text, which imports nothing."""
    config.addinivalue_line("filterwarnings", "error:expected a terminal SNR")


# Where parts come together: they run as they do for users, and the tests of each part check its shapes.
TOGETHER = {Path(__file__).parent / name for name in ("commands", "compare", "evaluate", "recipes", "studies")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check no shapes in tests of what parts do together."""
    for item in items:
        if item.path.parent in TOGETHER:
            item.add_marker(pytest.mark.usefixtures("unchecked"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets, beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"real data sets are not at {DATA}: the readers are tested on synthetic files only")
    return DATA


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Check no shapes and types: for numerics that call small functions so often that checking them takes most of it.

    Other tests call the same functions with the same members, checked.
    """
    checks.update("jaxtyping_disable", True)
    yield
    checks.update("jaxtyping_disable", False)
