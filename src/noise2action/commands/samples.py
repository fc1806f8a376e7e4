"""Files of samples: .npz for any, .csv for points."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..generative import AnyModel
from ..storage import atomic_write, check_place


def check_file(out: Path, model: AnyModel) -> None:
    """Raise `ConfigError` unless samples of `model` can be written to `out`."""
    vectors = len(model.config.shape) == 1
    if out.suffix not in ((".npz", ".csv") if vectors else (".npz",)) or out.is_dir():
        raise ConfigError(f"--out: expected a .npz{' or .csv' if vectors else ''} file to write, got {out}")
    check_place(out, flag="--out")


def write_samples(out: Path, x: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Write `x` [n, ...] and a number, or as many as `x` has, a row for each of `columns`: arrays, or a table."""
    arrays = {"x": x.numpy(), **{name: column.numpy() for name, column in columns.items()}}
    if out.suffix == ".npz":
        binary = io.BytesIO()
        np.savez(binary, allow_pickle=False, **arrays)
        atomic_write(out, binary.getvalue())
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    # What `n2a toy FILE` reads as classes is called label there.
    head = [f"{name}{k}" for name, c in {"x": x, **columns}.items() if c.ndim == 2 for k in range(c.shape[1])]
    rows.writerow([*head, *(n.replace("labels", "label") for n, c in columns.items() if c.ndim == 1)])
    wide, narrow = ([c for c in columns.values() if c.ndim == axes] for axes in (2, 1))
    for k, row in enumerate(torch.cat([x, *wide], dim=1).tolist()):
        rows.writerow([*(f"{v:.7g}" for v in row), *(f"{c[k].item():g}" for c in narrow)])
    atomic_write(out, text.getvalue().encode())
