"""`n2a sample --encode`: data carried to noise by the probability flow, and back."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.points import READERS, check_finite
from ..diffusion.denoisers import Counted
from ..diffusion.ode import cleanest_time, decode, encode
from ..errors import ConfigError, DataError
from ..evaluate.tables import network_evaluations
from ..generative import AnyModel
from .interpolate import SOLVER
from .samples import write_samples
from .terminal import say


def read(path: Path) -> tuple[Tensor, Tensor | None]:
    """Return the samples in a .npz (array `x`), .npy or .csv file, and their classes where it has any, as numbered.

    Raises `DataError` for what holds no finite samples.
    """
    if path.suffix not in READERS:
        raise DataError(f"--encode: expected a .npz, .npy or .csv file, got {path}")
    try:
        x, labels = READERS[path.suffix](path)
        found = torch.from_numpy(np.asarray(x, np.float32))
        told = None if labels is None else torch.from_numpy(np.asarray(labels).astype(np.int64))
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from error
    except DataError:
        raise
    except Exception as error:  # numpy raises its own kinds on damaged files: zip, pickle, struct, unicode
        raise DataError(f"{path}: expected samples as numbers, and classes as whole ones, got {error}") from error
    if not len(found):
        raise DataError(f"{path}: expected at least one sample, got none: check the path")
    check_finite(path, found.numpy())
    if told is not None and told.shape != found.shape[:1]:
        raise DataError(f"{path}: expected one class a sample ({len(found)}), got {tuple(told.shape)}")
    return found, told


def round_trip(model: AnyModel, x: Tensor, labels: Tensor | None, *, out: Path | None) -> int:
    """Encode `x` [n, *shape] under `labels` to noise and decode that again, tell the error, and write both to `out`."""
    if x.shape[1:] != model.config.shape:
        raise ConfigError(f"--encode: expected samples of shape {model.config.shape}, got {tuple(x.shape[1:])}")
    objective = model.config.objective
    start, cleanest = objective.span[1], cleanest_time(objective.path, low=objective.span[0])
    denoise = Counted(model.denoiser(labels))
    began = time.perf_counter()
    with torch.no_grad():
        y = model.normalised(x)
        noise = encode(denoise, objective.path, y, solver=SOLVER, start=start, cleanest=cleanest)
        back = decode(denoise, objective.path, noise, solver=SOLVER, start=start, cleanest=cleanest)
        error = float((model.raw(back) - model.raw(y)).abs().max())
    say(
        f"{len(x)} samples to noise and back: {network_evaluations(denoise.nfe)}, "
        f"{1e3 * (time.perf_counter() - began):.1f} ms, largest error {error:.2g}"
    )
    if out is not None:
        columns = {"decoded": model.raw(back), **({} if labels is None else {"labels": labels})}
        write_samples(out, noise, columns)
        say(f"written: {out} (x: the noise, in units of the path; decoded: what it decodes to)")
    return 0
