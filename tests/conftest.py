"""Every test runs with shapes and types checked at run time, on one thread, reproducibly."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# A warning filter that names a class of the package imports it before this file is read, and so past the hook.
for name in [n for n in sys.modules if n.split(".")[0] == "noise2action"]:
    del sys.modules[name]
install_import_hook(["noise2action"], "beartype.beartype")

torch.set_num_threads(1)
settings.register_profile("fast", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("fast")

DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Make an unexpected terminal-SNR warning an error; by its text, which imports nothing."""
    config.addinivalue_line("filterwarnings", "error:expected a terminal SNR")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets, beside the repository."""
    if not DATA.is_dir():
        pytest.skip(f"real data sets are not at {DATA}: the readers are tested on synthetic files only")
    return DATA
