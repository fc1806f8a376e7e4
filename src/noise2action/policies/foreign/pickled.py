"""Pickled checkpoints: a program of its own, in a process with limits, takes tensors and configuration out.

Nothing of the file is executed, neither there (`unpickle.py` knows a closed list of names) nor here (what comes over is
safetensors and JSON).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ...errors import CheckpointError
from .options import read_json

UNPICKLE = Path(__file__).with_name("unpickle.py")
"""The program; it is run, not imported."""
SECONDS = 900
"""Time that it has."""


def unpickled(file: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration and the weights that the program in its own process takes out of `file`."""
    if not file.is_file():
        got = "a folder" if file.is_dir() else "no such file"
        raise CheckpointError(f"expected a checkpoint file (.ckpt), got {got}: {file}")
    environment = {**{k: os.environ[k] for k in ("PATH",) if k in os.environ}, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", str(UNPICKLE), str(file.resolve()), folder]
        try:
            done = subprocess.run(  # noqa: S603 - our own program; the file is its data
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"{file}: expected a checkpoint read in {SECONDS} s, got none") from error
        if done.returncode:
            said = done.stderr.strip().splitlines()
            why = said[-1] if done.returncode == 2 and said else f"it ended with {done.returncode}, over its limits"
            raise CheckpointError(f"{file}: {why}")
        return read_json(Path(folder) / "config.json"), load_file(Path(folder) / "weights.safetensors")
