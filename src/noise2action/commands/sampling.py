"""Solvers, grids and objectives by the names that the command line takes."""

from dataclasses import fields, replace
from typing import Any, cast

from ..config import decode, kind, members
from ..diffusion.grids import AnyGrid
from ..diffusion.objective import Diffusion
from ..diffusion.samplers import NAMED, Adaptive, AnySampler
from ..errors import ConfigError, did_you_mean

GRIDS = members(AnyGrid)


def resolve(
    sampler: str | AnySampler,
    *,
    eta: float | None = None,
    order: int | None = None,
    switch: float | None = None,
    rtol: float | None = None,
    nfe: int | None = None,
) -> AnySampler:
    """Return the sampler with this name (or the one given) and these options.

    For an adaptive one `rtol` is both tolerances, and `nfe` the limit.
    Raises `ConfigError` for an unknown name, and for an option that the sampler does not have.
    """
    chosen = _named(sampler) if isinstance(sampler, str) else sampler
    given = {"eta": eta, "order": order, "switch": switch, "rtol": rtol}
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(chosen, Adaptive) and nfe is not None:
        options["max_nfe"] = nfe
    known = {f.name for f in fields(chosen)}
    for name in options:
        if name not in known:
            others = sorted(n for n, s in NAMED.items() if name in {f.name for f in fields(s)})
            raise ConfigError(
                f"--{name}: expected a sampler that has it ({', '.join(others)}), got {kind(type(chosen))}"
            )
    if rtol is not None:
        options["atol"] = rtol
    return replace(chosen, **options)


def _named(name: str) -> AnySampler:
    found = NAMED.get(name.lower().replace("_", "-"))
    if found is None:
        raise ConfigError(f"--sampler: expected a sampler by name, got {name!r}; {did_you_mean(name, NAMED)}")
    return found


def grid_named(name: str) -> AnyGrid:
    """Return the grid with this name and its default options."""
    found = GRIDS.get(name.lower().replace("-", "_"))
    if found is None:
        raise ConfigError(f"--grid: expected a grid by name, got {name!r}; {did_you_mean(name, GRIDS)}")
    return cast("AnyGrid", found())


def objective_named(*, path: str, target: str, times: str, weight: str, span: tuple[float, float]) -> Diffusion:
    """Return the objective of these parts, with their default options, for data of standard deviation 1."""
    chosen: Any = {"kind": "edm", "data_std": 1.0} if target == "edm" else target
    parts: Any = {"path": path, "target": chosen, "times": times, "weight": weight, "span": list(span)}
    return decode(Diffusion, parts, where="option")
