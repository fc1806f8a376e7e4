"""`n2a train RECIPE`: demonstrations in, a trained policy out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..config import FLAGS, encode
from ..data.actions import Relative
from ..data.formats import describe, locate
from ..data.normalize import Normalizer
from ..encoders.fuse import ObservationEncoder
from ..errors import ConfigError
from ..nets.counts import parameters
from ..policies import AnyPolicy, DiffusionConfig
from ..policies.backbone import Backbone
from ..policies.checkpoint import Checkpoint, complete, load
from ..policies.foreign.noise import in_words
from ..recipes import find
from ..recipes.experiment import Experiment
from ..recipes.prepare import begun, job, schema_of
from ..recipes.runs import read_experiment, write_experiment
from ..schema import Schema
from ..train.folder import locked
from ..train.loop import Status, check_resumable, fit
from . import overrides
from .terminal import check_new, counter, note, training_bar


@dataclass(frozen=True)
class Train:
    """Train a policy. Every field of the recipe can be overridden: --train.minutes 15, --policy regression, ..."""

    recipe: Annotated[str, tyro.conf.Positional]
    """two_routes, two_routes_goal, two_routes_text, gentle_firm, maze, obstacles, pusht_state, pusht_state_unet,
    pusht_state_transformer, pusht_image, grasp_seen, grasp_novel, push_block, insert_peg, open_drawer, assembly,
    grasp_seen_post or push_block_post."""
    out: Path | None = None
    """Run folder to write."""
    config: Path | None = None
    """JSON file with fields to override."""
    print_config: bool = False
    """Print the configuration as JSON and stop."""
    init: Path | None = None
    """Run to start from: its policy and normaliser, its averaged weights, and a fresh optimiser."""
    resume: bool = False
    """Go on with the run in --out."""


def main(args: Train, rest: list[str]) -> int:
    """Run `n2a train`."""
    experiment = find(args.recipe)
    start = None if args.init is None else load(args.init)
    if start is not None:
        experiment = begun(experiment, start)
    if args.config is not None:
        experiment = _applied(experiment, overrides.read_config(args.config), str(args.config))
    experiment = _applied(experiment, overrides.parse(rest), FLAGS)
    if args.print_config:
        print(json.dumps(encode(experiment, Experiment), indent=1))  # noqa: T201
        return 0
    if args.out is None:
        raise ConfigError("expected --out RUN, the folder to write the run to, got none")
    check_new(args.out)
    if start is not None:
        _check_start(experiment, start)
    return 0 if train(experiment, args.out, resume=args.resume, start=start) else 130


def _check_start(experiment: Experiment, start: Checkpoint) -> None:
    """Raise `ConfigError` where the policy is another than the start, but for sampling, stride and length of chunks."""
    before = begun(experiment, start)
    may_change = ["policy.sampling.", "policy.spec.stride"]
    # The normaliser of relative actions is that of chunks of one length: longer ones reach farther.
    if not isinstance(before.policy.spec.action_space, Relative):
        may_change.append("policy.spec.horizon")
    if changed := _changed(before, experiment, may_change=tuple(may_change)):
        raise ConfigError(
            f"--init: {changed}: policy and normaliser are those of the run to start from; leave that option out, or "
            "train without --init"
        )


def _applied(experiment: Experiment, edits: dict[str, Any], where: str) -> Experiment:
    """Return the experiment with `edits`; a budget in steps replaces the recipe's budget in minutes."""
    budget = edits.get("train")
    if isinstance(budget, dict) and "steps" in budget and "minutes" not in budget:
        edits = {**edits, "train": {**budget, "minutes": None}}
    return overrides.apply(experiment, edits, where=where)


def train(experiment: Experiment, out: Path, *, resume: bool = False, start: Checkpoint | None = None) -> bool:
    """Train `experiment` in the run folder `out`; return False where an interrupt ended it, its state saved.

    With a `start` features, normaliser and first weights are those of that checkpoint.
    """
    check_resumable(out, resume=resume)
    if not complete(out):
        _check_policy(experiment, start)
    with locked(out):
        if complete(out) and (changed := _changed(read_experiment(out), experiment)):
            raise ConfigError(f"{out}: {changed}: it was started otherwise; use the same command, or another --out")
        if experiment.data.path is not None:
            note(f"reading {experiment.data.path} ...")
        with counter() as progress:
            bar = progress.add_task("demonstrations", total=experiment.data.demonstrations, visible=False)
            prepared, summary = job(
                experiment, start=start, on_progress=lambda n: progress.update(bar, completed=n, visible=True)
            )
        write_experiment(out, experiment, summary)
        note(
            f"{summary.episodes} episodes ({summary.held_out} held out), {summary.steps} steps from {summary.source}; "
            f"{len(prepared.training.windows)} training windows"
        )
        for warning in summary.warnings:
            note(f"warning: {warning}")
        with training_bar() as show:
            finished = fit(prepared, out, resume=resume, on_status=lambda s: show(s.progress, _note(s)))
            if finished:
                show(1.0, None)
    again = "" if finished else "; go on with the same command and --resume"
    note(f"{'trained' if finished else 'interrupted, saved'}: {out}{again}")
    return finished


BYTES = 20
"""Memory that training needs for a weight: it, its gradient, average and two moments, in float32."""


def _check_policy(experiment: Experiment, start: Checkpoint | None) -> None:
    """Raise an error unless the policy can be built and prepared; nothing is demonstrated, allocated or written."""
    schema = schema_of(experiment, start)
    if experiment.data.path is not None:
        describe(locate(experiment.data.path))
    with torch.device("meta"):
        policy = experiment.policy.build(schema, Normalizer({}))
    if start is not None:
        _check_length(policy, experiment, start)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if BYTES * parameters(policy) > memory:
        raise ConfigError(
            f"expected a policy whose training fits in {memory / 1e9:.3g} GB, got {parameters(policy):,} parameters "
            f"that need {BYTES * parameters(policy) / 1e9:,.3g} GB: choose smaller widths"
        )
    _check_step(experiment, schema, memory=memory - BYTES * parameters(policy))
    for module in policy.modules():
        if isinstance(module, Backbone) and module.attends and module.encoder.token_dim is None:
            note("warning: the network attends to one token, the whole observation: give --policy.encoder.token-dim 64")
        if isinstance(module, ObservationEncoder) and start is None:
            module.prepare()


def _check_step(experiment: Experiment, schema: Schema, *, memory: int) -> None:
    """Raise `ConfigError` unless what the network keeps of a step for its backward pass fits in `memory` bytes."""
    policy, train = experiment.policy, experiment.train
    draws = policy.draws if isinstance(policy, DiffusionConfig) else 1
    for module in policy.build(schema, Normalizer({})).eval().modules():
        if isinstance(module, Backbone):
            encoding, call = module.activations()
            need = train.batch_size * (encoding + draws * call)
            if train.half_precision(torch.device("cpu")):
                need //= 2
            if need > memory:
                raise ConfigError(
                    f"expected a step of training that fits in {memory / 1e9:.3g} GB, got {train.batch_size} windows "
                    f"x {draws} draws that keep {need / 1e9:,.3g} GB for the backward pass: lower train.batch_size or "
                    "policy.draws, or leave policy.encoder.image_tokens pooled"
                )


def _check_length(policy: AnyPolicy, experiment: Experiment, start: Checkpoint) -> None:
    """Raise `ConfigError` where chunks have another length than at the `start`, and its weights are for that one."""
    before, now = start.deployed.policy.spec.horizon, experiment.policy.spec.horizon
    own, given = ({name: x.shape for name, x in part.items()} for part in (policy.state_dict(), start.tensors["ema"]))
    if before != now and own != given:
        raise ConfigError(
            f"--init: policy.spec.horizon: expected {before}, got {now}: the weights are for chunks of that length; "
            "leave that option out, or start from a network of any length, such as transformer or dit"
        )


MAY_CHANGE = ("threads", "log_every", "validate_minutes", "save_minutes", "save_steps", "tensorboard")
"""Fields of `train` that a resumed run may change: the result does not depend on them."""


def _changed(old: Experiment, new: Experiment, *, may_change: tuple[str, ...] = ()) -> str | None:
    """Return the first field that differs between two runs and must not, with both values; None where none does.

    Another task, or another kind of a part, says it all: they come before the fields that follow from them.
    """
    was, now = (_leaves(encode(e, Experiment)) for e in (old, new))
    free = ("evaluate.", *(f"train.{name}" for name in MAY_CHANGE), *may_change)
    changed = (k for k in was | now if was.get(k) != now.get(k) and not k.startswith(free))
    first = min(changed, key=lambda k: (k != "task", not k.endswith(".kind"), k.count("."), k), default=None)
    if first is None:
        return None
    return f"{first.removesuffix('.kind')}: expected {in_words(was.get(first))}, got {in_words(now.get(first))}"


def _leaves(body: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in body.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _note(status: Status) -> str:
    note = f"step {status.step}  loss {status.loss:.4f}  {status.samples_per_s:,.0f}/s"
    if status.validation is not None:
        note += f"  held out {status.validation.loss:.4f}"
    return note
