"""Solvers, grids and objectives by the names that the command line takes, with their options in brackets.

`ddim`, `heun(frame=edm)`, `log_snr(low=-4, high=3)`, `schedule(name=cosine, steps=100)`, and nested:
`hybrid(first=ddpm(variance=beta), second=unipc, switch=0.5)`, `edm-stochastic(churn.amount=10)`.
"""

import json
import re
from dataclasses import fields, replace
from typing import Any, cast

from ..config import FLAGS, decode, encode, kind, members
from ..diffusion.grids import AnyGrid
from ..diffusion.objective import Diffusion
from ..diffusion.samplers import NAMED, Adaptive, AnySampler
from ..errors import ConfigError, did_you_mean
from ..evaluate.result import name_of

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
    chosen = _sampler(sampler) if isinstance(sampler, str) else sampler
    given = {"eta": eta, "order": order, "switch": switch, "rtol": rtol}
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(chosen, Adaptive) and nfe is not None:
        options["max_nfe"] = nfe
    known = {f.name for f in fields(chosen)}
    for name in options:
        if name not in known:
            others = sorted(n for n, s in NAMED.items() if name in {f.name for f in fields(s)})
            got = sampler if isinstance(sampler, str) else name_of(chosen) or kind(type(chosen))
            raise ConfigError(
                f"--{name}: expected a sampler that has it ({', '.join(others)}), got {got}: "
                f"add --sampler {others[0]}, or leave --{name} out"
            )
    if rtol is not None:
        options["atol"] = rtol
    return replace(chosen, **options)


def component(text: str, *, flag: str) -> dict[str, Any]:
    """Return `name(key=value, ...)` as JSON with its kind; `a.b=1` is an option of an option."""
    found = re.fullmatch(r"\s*([\w+-]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if found is None:
        raise ConfigError(f"{flag}: expected a name, or name(option=value, ...), got {text!r}")
    body: dict[str, Any] = {"kind": found[1].lower().replace("-", "_")}
    for part in _split(found[2] or ""):
        key, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[\w.]+", key.strip()):
            raise ConfigError(f"{flag}: expected option=value, got {part.strip()!r} in {text!r}")
        *parents, last = key.strip().split(".")
        inside = body
        for name in parents:
            inside = inside.setdefault(name, {})
        inside[last] = _value(value.strip(), flag=flag)
    return body


def _split(text: str) -> list[str]:
    """Return the parts of `text` between its commas, but for those in brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _value(text: str, *, flag: str) -> Any:  # noqa: ANN401
    if "(" in text:
        return component(text, flag=flag)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sampler(text: str) -> AnySampler:
    """Return the sampler that `text` names, the parts of a hybrid by name as well."""
    return _sampler_of(component(text, flag="--sampler"))


def _sampler_of(body: dict[str, Any]) -> AnySampler:
    options = dict(body)
    name = options.pop("kind").replace("_", "-")
    chosen = NAMED.get(name)
    if chosen is None:
        raise ConfigError(f"--sampler: expected a sampler by name, got {name!r}; {did_you_mean(name, NAMED)}")
    for key in {"first", "second"} & options.keys():
        part = options[key]
        inner = _sampler_of(part if isinstance(part, dict) else {"kind": str(part)})
        options[key] = {"kind": kind(type(inner)), **encode(inner)}
    return decode(type(chosen), options, where="--sampler", default=chosen)


def grid_named(text: str) -> AnyGrid:
    """Return the grid that `text` names."""
    options = component(text, flag="--grid")
    name = options.pop("kind")
    if name not in GRIDS:
        raise ConfigError(f"--grid: expected a grid by name, got {name!r}; {did_you_mean(name, GRIDS)}")
    return cast("AnyGrid", decode(GRIDS[name], options, where="--grid"))


def objective_named(*, path: str, target: str, times: str, weight: str, span: tuple[float, float]) -> Diffusion:
    """Return the objective of these parts, for data of standard deviation 1."""
    named = {"path": path, "target": target, "times": times, "weight": weight}
    bodies: dict[str, dict[str, Any]] = {name: component(text, flag=f"--{name}") for name, text in named.items()}
    if bodies["target"]["kind"] == "edm":
        bodies["target"].setdefault("data_std", 1.0)
    return decode(Diffusion, {**bodies, "span": list(span)}, where=FLAGS)
