"""The computer that a figure was measured on."""

import os
import platform
from pathlib import Path


def hardware() -> str:
    """Return the name of this computer's processor and its number of logical cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} logical cores"
