"""Which features of a task the arrays of a foreign policy are: as told, or where only one fits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...errors import SchemaError, did_you_mean
from ...schema import Feature, Schema
from .layout import Foreign, Places, Source


def parse(told: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return `observation.state=agent_position,block_position` and the like as name -> features."""
    found: dict[str, tuple[str, ...]] = {}
    for text in told:
        name, equals, features = text.partition("=")
        if not (equals and name and all(features.split(","))) or name in found:
            raise SchemaError(f"--feature: expected NAME=FEATURE, or NAME=FEATURE,FEATURE, each once, got {text!r}")
        found[name] = tuple(features.split(","))
    return found


def placed(foreign: Foreign, schema: Schema, told: Mapping[str, tuple[str, ...]]) -> Places:
    """Return the features of a task's `schema` that every array of `foreign` is; `SchemaError` where it is not clear.

    What is not told goes by the last part of its name, then to the only feature of its size, then, for a state, to all
    states of the task in order. States are taken as vectors: a policy that was trained on an angle in rad sees it so.
    """
    sources = {s.name: s for s in foreign.sources}
    for name in told:
        if name not in sources:
            raise SchemaError(
                f"--feature: expected a name of the checkpoint, got {name!r}; {did_you_mean(name, sources)}"
            )
    places = {name: _told(sources[name], schema, names) for name, names in told.items()}
    for by in (_by_name, _by_size, _all_states):
        taken = {f.name for features in places.values() for f in features}
        free = [f for f in schema.observations if f.name not in taken and not f.goal]
        places |= by([s for s in foreign.sources if s.name not in places], free)
    for source in foreign.sources:
        if source.name not in places:
            known = ", ".join(f"{f.name} {f.shape}" for f in schema.observations)
            raise SchemaError(
                f"expected one feature of the task that {source.name!r} {source.shape} is, got none or several: say "
                f"--feature {source.name}=NAME with {known}"
            )
    if foreign.action.shape != schema.action.shape:
        raise SchemaError(f"expected actions {foreign.action.shape}, got a task with {schema.action.shape}")
    return {**places, foreign.action.name: (schema.action,)}


def _told(source: Source, schema: Schema, names: tuple[str, ...]) -> tuple[Feature, ...]:
    known = {f.name: f for f in schema.observations}
    for name in names:
        if name not in known:
            raise SchemaError(f"--feature: expected a feature of the task, got {name!r}; {did_you_mean(name, known)}")
    features = tuple(known[name] for name in names)
    if not _fits(source, features):
        shown = ", ".join(f"{f.name} {f.kind} {f.shape}" for f in features)
        raise SchemaError(f"--feature: expected what {source.name!r} {source.shape} can be, got {shown}")
    return _vectors(features)


def _fits(source: Source, features: Sequence[Feature]) -> bool:
    if source.is_image:
        return len(features) == 1 and features[0].kind == "image" and features[0].image_size == source.shape[1:]
    return all(f.is_state for f in features) and sum(f.size for f in features) == source.shape[0]


def _vectors(features: Sequence[Feature]) -> tuple[Feature, ...]:
    return tuple(replace(f, kind="vector") if f.kind == "angle" else f for f in features)


def _by_name(sources: Sequence[Source], free: Sequence[Feature]) -> dict[str, tuple[Feature, ...]]:
    found = {s.name: [f for f in free if f.name == s.name.rpartition(".")[2] and _fits(s, [f])] for s in sources}
    return {name: _vectors(features) for name, features in found.items() if features}


def _by_size(sources: Sequence[Source], free: Sequence[Feature]) -> dict[str, tuple[Feature, ...]]:
    """Return the sources that only one feature fits, which fits no other source."""
    fits = {s.name: [f for f in free if _fits(s, [f])] for s in sources}
    wanted = [f.name for features in fits.values() for f in features]
    return {n: _vectors(fs) for n, fs in fits.items() if len(fs) == 1 and wanted.count(fs[0].name) == 1}


def _all_states(sources: Sequence[Source], free: Sequence[Feature]) -> dict[str, tuple[Feature, ...]]:
    states = [f for f in free if f.is_state]
    fitting = [s for s in sources if not s.is_image and len(states) > 1 and _fits(s, states)]
    return {fitting[0].name: _vectors(states)} if len(fitting) == 1 else {}
