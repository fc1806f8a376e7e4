"""Frozen dataclasses to JSON and back through closed unions; what is not declared is rejected where it stands."""

import itertools
import json
from dataclasses import dataclass, field, make_dataclass
from itertools import product
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noise2action.config import decode, encode, field_types, kind, members
from noise2action.diffusion.grids import AnyGrid, Karras, LogSNR
from noise2action.diffusion.objective import AnyWeight, Diffusion, MinSNR
from noise2action.diffusion.paths import VE, AnyPath, Cosine, LinearVP, Straight, SubVP, Table
from noise2action.diffusion.samplers import DDIM, DDPM, Adams, AnySampler
from noise2action.diffusion.targets import EDM, AnyTarget, Epsilon, V, Velocity
from noise2action.diffusion.times import AnyTimeLaw, LogitNormal
from noise2action.errors import ConfigError

UNIONS = {"path": AnyPath, "target": AnyTarget, "times": AnyTimeLaw, "weight": AnyWeight}


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    count: int = 3


@dataclass(frozen=True)
class Other:
    rate: float = 9.0


@dataclass(frozen=True)
class Outer:
    name: str
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    limit: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    inner: Inner = field(default_factory=Inner)
    choice: Inner | Other = field(default_factory=Inner)
    maybe: Inner | Other | None = None
    single: Inner | None = None
    many: tuple[Inner | Other, ...] = ()
    mixed: tuple[int, Inner | Other] = field(default_factory=lambda: (1, Inner()))
    perhaps: tuple[Inner | Other, ...] | None = None


def through_json(value: object) -> object:
    return json.loads(json.dumps(value, allow_nan=False))


def there_and_back(value: Diffusion) -> Diffusion:
    return decode(Diffusion, through_json(encode(value)))


def combinations() -> list[Diffusion]:
    """Return every member of a union beside every member of every other."""
    usual = {"path": Cosine(), "target": V(), "span": (0.02, 0.98)}
    return [
        Diffusion(**{**usual, one: first(), other: second()})
        for one, other in itertools.combinations(UNIONS, 2)
        for first, second in product(get_args(UNIONS[one]), get_args(UNIONS[other]))
        if (first, second) != (Table, Velocity)
    ]


def test_every_pair_of_members_survives() -> None:
    found = combinations()
    assert len(found) > 100
    for diffusion in found:
        assert there_and_back(diffusion) == diffusion


def test_what_is_written_is_readable() -> None:
    assert encode(Diffusion(path=LinearVP(), target=EDM(data_std=0.7))) == {
        "path": {"kind": "linear_vp", "beta_min": 0.1, "beta_max": 20.0},
        "target": {"kind": "edm", "data_std": 0.7},
        "times": {"kind": "stratified"},
        "weight": {"kind": "uniform"},
        "span": [0.0, 1.0],
        "strict": False,
    }


positive = st.floats(1e-6, 1e6)


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
@given(
    path=st.one_of(
        st.builds(Straight),
        st.builds(VE, sigma_min=st.floats(1e-4, 0.1), sigma_max=st.floats(40, 1000)),
        st.builds(LinearVP, beta_min=st.floats(0.01, 1), beta_max=st.floats(15, 40)),
        st.lists(st.floats(0.4, 0.9), min_size=15, max_size=30).map(tuple),
    ),
    target=st.one_of(st.builds(V), st.builds(EDM, data_std=positive)),
    times=st.builds(LogitNormal, mean=st.floats(-5, 5), std=positive),
    weight=st.builds(MinSNR, gamma=positive),
    span=st.tuples(st.floats(0, 0.4), st.floats(0.6, 1)),
)
def test_numbers_survive_to_the_last_bit(path, target, times, weight, span) -> None:
    path = Table(path) if isinstance(path, tuple) else path
    diffusion = Diffusion(path=path, target=target, times=times, weight=weight, span=span)
    assert there_and_back(diffusion) == diffusion


@pytest.mark.parametrize("declared", [AnySampler, AnyGrid, *UNIONS.values()], ids=lambda u: kind(get_args(u)[0]))
def test_every_member_of_a_union_survives(declared) -> None:
    holder = make_dataclass("Holder", [("member", declared)], frozen=True)
    for member in get_args(declared):
        assert decode(holder, through_json(encode(holder(member())))) == holder(member())


def test_samplers_and_grids_survive_with_their_numbers() -> None:
    holder = make_dataclass("Holder", [("sampler", AnySampler), ("grid", AnyGrid)], frozen=True)
    for sampler, grid in ((DDPM(variance="beta"), Karras(rho=5.0)), (Adams(order=3), LogSNR(low=-4.0, high=4.5))):
        assert decode(holder, through_json(encode(holder(sampler, grid)))) == holder(sampler, grid)


@pytest.mark.parametrize("declared", [AnySampler, AnyGrid, *UNIONS.values()], ids=lambda u: kind(get_args(u)[0]))
def test_kinds_are_distinct_lower_case_and_complete(declared) -> None:
    names = members(declared)
    assert len(names) == len(get_args(declared))
    assert all(name == name.lower() and name.isidentifier() for name in names)


def test_kinds_written_out() -> None:
    class MLPConfig: ...

    class UNet1dConfig: ...

    classes = (LinearVP, SubVP, VE, EDM, V, MinSNR, LogSNR, LogitNormal, DDIM, Straight, MLPConfig, UNet1dConfig)
    assert [kind(c) for c in classes] == [
        *("linear_vp", "sub_vp", "ve", "edm", "v", "min_snr", "log_snr", "logit_normal", "ddim", "straight"),
        *("mlp", "unet1d"),
    ]


FULL = Outer(
    name="n",
    flag=True,
    mode="slow",
    limit=0.5,
    sizes=(4, 5, 6),
    pair=(7, 8.5),
    inner=Inner(rate=1.0),
    choice=Other(rate=2.0),
    maybe=Inner(count=8),
    single=Inner(count=9),
    many=(Inner(), Other(), Inner(count=1)),
    mixed=(2, Other()),
    perhaps=(Other(), Inner()),
)


@pytest.mark.parametrize("value", [FULL, Outer(name="defaults")], ids=["full", "defaults"])
def test_every_kind_of_field_survives(value: Outer) -> None:
    assert decode(Outer, through_json(encode(value))) == value


def test_absent_keys_keep_the_defaults_given_or_the_class_ones() -> None:
    assert decode(Outer, {"name": "x"}) == Outer(name="x")
    base = Outer(name="base", limit=3.0, inner=Inner(rate=0.7, count=5), choice=Other(rate=4.0))
    assert decode(Outer, {}, default=base) == base
    changed = decode(Outer, {"inner": {"count": 6}, "choice": {"rate": 5.0}}, default=base)
    assert changed.inner == Inner(rate=0.7, count=6)
    assert changed.choice == Other(rate=5.0)
    assert (changed.name, changed.limit) == ("base", 3.0)
    # Naming another kind starts from that kind's own numbers: they mean other things.
    assert decode(Outer, {"choice": {"kind": "inner", "count": 2}}, default=base).choice == Inner(rate=0.1, count=2)
    assert decode(Outer, {"limit": None}, default=base).limit is None
    assert decode(Outer, {"maybe": None}, default=FULL).maybe is None


def test_a_kind_alone_is_enough() -> None:
    assert decode(Diffusion, {"path": "straight", "target": "velocity"}) == Diffusion(Straight(), Velocity())
    assert decode(Diffusion, {"path": {"kind": "ve"}}).path == VE()


def test_whole_numbers_are_floats_where_a_float_is_declared() -> None:
    value = decode(Inner, {"rate": 2})
    assert value == Inner(rate=2.0)
    assert type(value.rate) is float


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"pathh": "ve"}, r"^config: unknown key 'pathh'; known: .*\(did you mean 'path'\?\)$"),
        ({"path": {"kind": "cosin"}}, r"^config\.path: expected a known kind, got 'cosin': .*did you mean 'cosine'"),
        ({"path": "linear_pv"}, r"^config\.path: .*did you mean 'linear_vp'"),
        ({"path": {"kind": "linear_vp", "beta_mn": 1}}, r"^config\.path: unknown key 'beta_mn'.*'beta_min'"),
        ({"path": {"kind": "linear_vp", "kindd": 1}}, r"unknown key 'kindd'"),
        ({"path": {"kind": None}}, r"^config\.path: expected a known kind, got None"),
        ({"path": {"kind": ["ve"]}}, r"^config\.path: expected a known kind, got \['ve'\]"),
        ({"path": {"kind": {}}}, r"^config\.path: expected a known kind"),
        ({"path": 3}, r"^config\.path: expected an object with a kind, got int '3'"),
        ({"path": None}, r"^config\.path: expected an object with a kind"),
        ({"path": []}, r"^config\.path: expected an object with a kind"),
        ({"kind": "diffusion"}, r"unknown key 'kind'"),
        ({"span": [0, 1, 2]}, r"^config\.span: expected 2 values, got 3"),
        ({"span": {"low": 0}}, r"^config\.span: expected a list"),
        ({"span": "01"}, r"^config\.span: expected a list"),
        ({"span": [0, "1"]}, r"^config\.span\[1\]: expected float, got str"),
        ({"span": [0, True]}, r"^config\.span\[1\]: expected float, got bool"),
        ({"strict": 1}, r"^config\.strict: expected bool, got int"),
        ({"strict": None}, r"^config\.strict: expected bool"),
        ([], r"^config: expected an object, got list"),
        (None, r"^config: expected an object, got null$"),
    ],
    ids=str,
)
def test_what_is_not_declared_is_rejected_at_its_place(data, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        decode(Diffusion, data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "expected a value for 'name', got none"),
        ({"name": 3}, r"config\.name: expected str, got int"),
        ({"name": "x", "flag": 0}, r"config\.flag: expected bool, got int"),
        ({"name": "x", "inner": {"count": True}}, r"config\.inner\.count: expected int, got bool"),
        ({"name": "x", "inner": {"count": 3.0}}, r"config\.inner\.count: expected int, got float"),
        ({"name": "x", "inner": {"count": "3"}}, r"config\.inner\.count: expected int, got str"),
        ({"name": "x", "mode": "fsat"}, r"config\.mode: .*did you mean 'fast'"),
        ({"name": "x", "mode": ["fast"]}, r"config\.mode: expected one of its names"),
        ({"name": "x", "limit": "high"}, r"config\.limit: expected float, got str"),
        ({"name": "x", "sizes": [1, 2.5]}, r"config\.sizes\[1\]: expected int, got float"),
        ({"name": "x", "many": [{"kind": "inner"}, {"kind": "outer"}]}, r"config\.many\[1\]: expected a known kind"),
        ({"name": "x", "many": [{"rate": 1.0}]}, r"config\.many\[0\]: expected a known kind, got None"),
    ],
    ids=str,
)
def test_other_types_are_rejected_at_their_place(data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(Outer, data)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "-1" + "0" * 400])
def test_numbers_that_are_not_finite_are_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.rate: expected a finite number"):
        decode(Inner, json.loads(f'{{"rate": {text}}}'))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": {"kind": "ve", "sigma_min": -1}}, r"^config\.path: expected 0 < sigma_min < sigma_max"),
        ({"path": {"kind": "table", "betas": [0.5, 2.0]}}, r"^config\.path: expected betas in \(0, 1\), got 2\.0"),
        ({"path": "straight", "target": "epsilon"}, r"^config: Epsilon target on Straight cannot start"),
        ({"span": [1, 0]}, r"^config: expected a span"),
    ],
    ids=str,
)
def test_what_the_dataclass_rejects_is_reported_with_its_place(data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(Diffusion, data)


def test_the_place_is_named_as_asked() -> None:
    with pytest.raises(ConfigError, match=r"^run\.json\.target: expected a known kind"):
        decode(Diffusion, {"target": "eps"}, where="run.json")


keys = st.sampled_from([*field_types(Outer), "kind", "rate"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_decoded_or_rejected(data) -> None:
    """Whatever a file holds: a value, or a ConfigError; never another exception."""
    for declared in (Outer, Diffusion, Inner):
        try:
            value = decode(declared, data)
        except ConfigError:
            continue
        assert decode(declared, through_json(encode(value))) == value


def test_decoding_changes_neither_the_data_nor_the_default() -> None:
    data = {"path": {"kind": "ve", "sigma_max": 90.0}, "target": {"kind": "v"}}
    before, default = json.dumps(data), Diffusion(path=Cosine(), target=V())
    decode(Diffusion, data, default=default)
    assert json.dumps(data) == before
    assert default == Diffusion(path=Cosine(), target=V())


def test_unions_of_dataclasses_only_have_members() -> None:
    assert members(Inner | Other) == {"inner": Inner, "other": Other}
    assert members(Inner | Other | None) == {"inner": Inner, "other": Other}
    assert members(Inner | None) == members(float | None) == members(Inner) == members(int | Inner) == {}
    assert members(AnyTarget)["epsilon"] is Epsilon
