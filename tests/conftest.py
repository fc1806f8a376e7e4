"""Tests run on one thread, reproducibly; those of single parts with shapes checked at run time."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import config as checks
from jaxtyping import install_import_hook

# A warning filter that names a class of the package imports it before this file is read, and so past the hook.
for name in [n for n in sys.modules if n.split(".")[0] == "noise2action"]:
    del sys.modules[name]
# Where shapes are written, but for verbs, comparisons and studies: their tests are of what parts do together.
CHECKED = "condition control data diffusion encoders evaluate generative nets policies train"
install_import_hook([f"noise2action.{name}" for name in CHECKED.split()], "beartype.beartype")

torch.set_num_threads(1)
settings.register_profile("fast", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("fast")

DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Make an unexpected terminal-SNR warning an error; by its text, which imports nothing."""
    config.addinivalue_line("filterwarnings", "error:expected a terminal SNR")


# Where parts come together: they run as they do for users. What has shapes of its own there is drawn or printed.
TOGETHER = {Path(__file__).parent / name for name in ("commands", "compare", "recipes", "studies")}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check no shapes in tests of what parts do together, nor, fixtures included, in those marked `unchecked`."""
    off = item.path.parent in TOGETHER or item.get_closest_marker("unchecked") is not None
    checks.update("jaxtyping_disable", off)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets, beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"real data sets are not at {DATA}: the readers are tested on synthetic files only")
    return DATA
