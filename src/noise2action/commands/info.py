"""`n2a info RUN|DATA`: what is in a run folder or a data set."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config import encode
from ..data import doctor
from ..data.formats import describe, locate, read
from ..errors import CheckpointError, DataError
from ..nets.counts import parameters
from ..policies import AnyPolicy, NearestConfig, NearestPolicy
from ..policies.backbone import Backbone
from ..policies.checkpoint import MANIFEST, complete, verify
from ..recipes.runs import open_policy, run_folder
from ..train.folder import read_metrics
from .terminal import say

LARGE_MB = 2000.0
"""Data sets larger than this are described from their metadata only."""


@dataclass(frozen=True)
class Info:
    """Show what a run or a data set holds: shapes, ranges, episode lengths, faults; weights, checkpoints, progress."""

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, checkpoint folder, or data set."""


def main(args: Info) -> int:
    """Run `n2a info`."""
    console = Console()
    if not args.path.exists():
        raise DataError(f"expected a run folder or a data set, got no such path: {args.path}")
    if (args.path / MANIFEST).exists() or (args.path / "config.json").exists():
        _run(args.path, console)
    else:
        _data(args.path, console)
    return 0


def _run(path: Path, console: Console) -> None:
    policy, checkpoint = open_policy(path)
    deployed = checkpoint.deployed
    spec = deployed.policy.spec
    table = Table(title=escape(str(path)), title_justify="left", show_header=False)
    table.add_row("task", deployed.task)
    table.add_row("policy", type(deployed.policy).__name__.removesuffix("Config").lower())
    if not isinstance(deployed.policy, NearestConfig):
        table.add_row("network", str(deployed.policy.net))
    table.add_row("parameters", f"{parameters(policy):,}")
    for name, size in sizes(policy):
        table.add_row(name, size)
    table.add_row(
        "steps",
        f"{spec.obs_steps} observed, {spec.horizon} planned from tick {spec.first_action}, "
        f"{spec.stride} executed, {spec.control_hz:g} Hz",
    )
    for feature in (*deployed.schema.observations, deployed.schema.action):
        table.add_row(feature.name, f"{feature.kind} {feature.shape} {feature.unit}")
    table.add_row("trained", f"{checkpoint.step:,} steps, {float(checkpoint.state['elapsed_s']) / 60:.1f} minutes")
    for record in [r for r in read_metrics(run_folder(path)) if r["kind"] == "validation"][-1:]:
        table.add_row("held out", f"loss {record['loss']:.4f}, action error {record['action_error']:.3g}")
    for folder in complete(run_folder(path)):
        table.add_row(folder.name, _state_of(folder))
    console.print(table)
    if hasattr(deployed.policy, "sampling"):
        console.print("sampling:", encode(deployed.policy.sampling))  # pyright: ignore[reportAttributeAccessIssue]


def sizes(policy: AnyPolicy) -> list[tuple[str, str]]:
    """Return what encoding an observation and calling the network cost, at batch 1."""
    if isinstance(policy, NearestPolicy):
        return [("training windows", f"{len(policy.seen):,}, looked up")]
    backbone = next(module for module in policy.modules() if isinstance(module, Backbone))
    modules = {"encoder": backbone.encoder, "network call": backbone.net}
    return [
        (name, f"{parameters(module):,} parameters, {count / 1e6:,.3g} M multiply-adds at batch 1")
        for (name, module), count in zip(modules.items(), backbone.multiply_adds(), strict=True)
    ]


def _state_of(folder: Path) -> str:
    try:
        files = verify(folder)
    except CheckpointError as error:
        return f"damaged: {error}"
    return f"verified, {sum(map(len, files.values())) / 1e6:.1f} MB"


def _data(path: Path, console: Console) -> None:
    found = describe(locate(path))
    say(f"{found.path}  ({found.format}): {found.episodes} episodes, {found.steps} steps")
    small = [name for name, f in found.features.items() if found.steps * prod(f.shape) * 4 <= LARGE_MB * 1e6]
    report = doctor.report(read(found.path, small))
    console.print(f"episode lengths {report.shortest} to {report.longest}, median {report.median_length:g}")
    table = Table(title="features, each a step", title_justify="left")
    for column in ("name", "shape", "dtype", "low", "high", "mean", "std"):
        table.add_column(column)
    for f in report.features:
        numbers = [_numbers(x) for x in (f.low, f.high, f.mean, f.std)]
        table.add_row(f.name, str(f.shape), f.dtype, *numbers)
    console.print(table)
    for finding in report.findings:
        say(f"{finding.level}: {finding.message}")
    console.print("healthy" if report.healthy else "not healthy: see the findings above")
    for name in sorted(set(found.features) - set(small)):
        stored = found.features[name]
        console.print(f"{name}: {stored.dtype} {stored.shape} a step, too large to scan here")
    for note in found.notes:
        say(f"note: {note}")


def _numbers(values: NDArray[np.float64], most: int = 6) -> str:
    shown = " ".join(f"{v:.3g}" for v in values.ravel()[:most])
    return shown + (" ..." if values.size > most else "")
