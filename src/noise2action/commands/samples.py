"""Files of samples: .npz for any, .csv for points."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import ConfigError
from ..generative import AnyModel
from ..storage import atomic_write


def check_file(out: Path, model: AnyModel) -> None:
    """Raise `ConfigError` unless samples of `model` can be written to `out`."""
    vectors = len(model.config.shape) == 1
    if out.suffix not in ((".npz", ".csv") if vectors else (".npz",)) or out.is_dir():
        raise ConfigError(f"--out: expected a .npz{' or .csv' if vectors else ''} file to write, got {out}")


def write_samples(out: Path, x: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Write `x` [n, ...] and one number a row for each of `columns`: arrays of those names, or columns of a table."""
    arrays = {"x": x.numpy(), **{name: column.numpy() for name, column in columns.items()}}
    if out.suffix == ".npz":
        binary = io.BytesIO()
        np.savez(binary, allow_pickle=False, **arrays)
        atomic_write(out, binary.getvalue())
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    # What `n2a toy FILE` reads as classes is called label there.
    rows.writerow([*(f"x{k}" for k in range(x.shape[1])), *(n.replace("labels", "label") for n in columns)])
    for k, row in enumerate(x.tolist()):
        rows.writerow([*(f"{v:.7g}" for v in row), *(f"{c[k].item():g}" for c in columns.values())])
    atomic_write(out, text.getvalue().encode())
