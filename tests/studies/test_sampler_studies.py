"""The studies of samplers in a tiny setting: their claims follow from their tables, and their tools keep their laws."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from noise2action.diffusion.denoisers import cfg
from noise2action.diffusion.exact import Mixture
from noise2action.diffusion.grids import LogSNR
from noise2action.diffusion.paths import Cosine
from noise2action.diffusion.samplers import DDIM, NAMED, RK4
from noise2action.evaluate.statistics import Estimate
from noise2action.studies import eta, guidance, latency_budget, ode_vs_sde, solver_order, steps
from noise2action.studies.quality import HALF_STOCHASTIC, STOCHASTIC, Bench, deterministic, exact, feasible
from noise2action.studies.study import Findings, Settings, find, mean

close = torch.testing.assert_close
NAMES = ("steps", "eta", "guidance", "ode-vs-sde", "solver-order", "latency-budget")
BELOW, ABOVE, TIE = (Estimate(v, v - 1, v + 1, 5) for v in (-2.0, 2.0, 0.5))


@cache
def tiny(name: str) -> tuple[Findings, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    return find(name).run(Settings("tiny", 3), lambda done, total: calls.append((done, total))), calls


def table(name: str) -> list[dict[str, Any]]:
    found, _ = tiny(name)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_reports_progress_and_fills_its_table(name: str) -> None:
    found, calls = tiny(name)
    assert calls[-1][0] == calls[-1][1] > 1
    assert calls == sorted(calls)
    assert all(len(row) == len(found.columns) for row in found.rows)
    for cell in (cell for row in found.rows for cell in row if isinstance(cell, Estimate)):
        assert cell.low <= cell.value <= cell.high
        assert cell.n >= 2
    assert found.figure.get_axes()
    assert found.paragraph.endswith(".")


@pytest.mark.parametrize("name", ["eta"])
def test_a_study_is_a_function_of_its_seed(name: str) -> None:
    found, _ = tiny(name)
    again = find(name).run(Settings("tiny", 3), lambda done, total: None)
    assert again.rows == found.rows
    assert again.paragraph == found.paragraph
    assert find(name).run(Settings("tiny", 4), lambda done, total: None).rows != found.rows


def test_steps_tells_what_its_table_holds() -> None:
    found, rows = tiny("steps")[0].paragraph, table("steps")
    assert {row["sampler"] for row in rows} == {*NAMED, "exact draws"}
    key = [column for column in rows[0] if column.startswith("energy minus")]
    compared = [r for r in rows if r["part"] == "grids"]
    for grid in steps.GRIDS:
        (row,) = [r for r in compared if (r["grid"], r["sampler"], r["calls"]) == (grid, steps.FAST, steps.FEW)]
        words = [("better" if v.high < 0 else "worse" if v.low > 0 else "tied") for v in (row[k] for k in key)]
        (line,) = [line for line in found.splitlines() if line.startswith(f"- On {grid}, from SNR ")]
        assert f"it is {words[0]} on moons against the same grid, and {words[1]} on moons" in line
    slow = [r for r in rows if (r["sampler"], r["calls"]) == ("ddim", 50)]
    assert {(r[key[0]].value, r[key[0]].low) for r in slow} == {(0, 0)}
    assert min(r[key[1]].value for r in slow if r["part"] == "grids") == 0


@pytest.mark.parametrize(("over", "word"), [(BELOW, "better"), (ABOVE, "worse"), (TIE, "tied")])
def test_steps_claims_turn_with_the_numbers(over: Estimate, word: str) -> None:
    energy = Estimate(5.0, 4.0, 6.0, 5)
    draws = steps.Row("moons", "grids", "-", "exact draws", 0, None, energy, energy, None, None)
    rows = [
        draws,
        replace(draws, part="solvers"),
        steps.Row("moons", "solvers", steps.MAIN, steps.FAST, steps.FEW, 1.0, energy, energy, over, None),
        *(
            steps.Row("moons", "grids", grid, steps.FAST, steps.FEW, 1.0, energy, energy, over, over)
            for grid in steps.GRIDS
        ),
    ]
    told = steps.paragraph(rows)
    assert told.count(f"it is {word} on moons against the same grid") == len(steps.GRIDS)
    assert ("is nowhere worse" in told) == (word != "worse")
    fair = re.findall(r"as it does on (.*)\.\n", told)
    assert bool(fair) == (word != "worse")
    assert all(steps.MAIN in grids and "-2 to 3" not in grids for grids in fair)  # at -2 signal is left
    assert f"with an excess of at most {100 * over.high / 5:.0f} %." in told
    assert ("On moons: 10 calls for dpm-solver++-2m" in told) == (word != "worse")


def test_eta_counts_what_its_table_holds() -> None:
    found, rows = tiny("eta")[0].paragraph, table("eta")
    recall = [row["recall minus eta 0"] for row in rows if row["eta"] == 1]
    counts = {"higher": sum(v.low > 0 for v in recall), "lower": sum(v.high < 0 for v in recall)}
    counts["tied"] = len(recall) - sum(counts.values())
    for word, count in counts.items():
        assert (f"{count} {word}" in found) == (count > 0)
    others = sum(row["eta"] != 0 for row in rows)
    assert f"These are {others + len(recall)} verdicts" in found
    assert all(row["share of fresh noise"].high < 1e-9 for row in rows if row["eta"] == 0)


def test_eta_claims_turn_with_the_numbers() -> None:
    row = eta.Row("ring", 1.0, 5, *[Estimate(1.0, 0.9, 1.1, 4)] * 5, BELOW, ABOVE)
    some = [(0.0, 5, TIE), (0.5, 5, ABOVE), (1.0, 5, BELOW), (0.0, 10, TIE), (0.5, 10, ABOVE), (1.0, 10, TIE)]
    rows = [replace(row, eta=value, calls=calls, energy_over=over) for value, calls, over in some]
    told = eta.paragraph(rows)
    assert "eta 0.5 is farther at 5 and 10 calls; eta 1 is tied at 10, closer at 5 calls" in told
    assert "over 2 settings: 2 higher" in told
    assert "These are 6 verdicts by 95 % intervals, of which about 0.3 are expected" in told
    assert "decides 100 % at eta 0, 100 % at eta 0.5 and 100 % at eta 1 of the variance" in told
    assert "can exceed" not in told
    shares = [Estimate(1.02, 0.99, 1.05, 4), Estimate(1.1, 1.05, 1.15, 4)]
    more = [replace(row, data=data, eta=1.0, calls=10, fresh=share) for data, share in zip("ab", shares, strict=True)]
    told = eta.paragraph([*rows, *more])
    assert "and 100 to 110 % at eta 1" in told
    assert "can exceed 100 %: 2 of them do, and the intervals of 1 of these hold 100 %" in told


def test_guidance_tells_what_its_table_holds() -> None:
    found, rows = tiny("guidance")[0].paragraph, [r for r in table("guidance") if r["variant"] == "plain"]
    first, last = rows[0], rows[-1]
    for column, name in (("own-class share", "the own-class share"), ("modes kept", "the share of modes kept")):
        before, after = first[column], last[column]
        word = "rises" if after.low > before.high else "falls" if after.high < before.low else "stays"
        assert re.search(f"{name} {word}.* from {100 * before.value:.1f} %", found)


def test_guidance_claims_turn_with_the_numbers() -> None:
    low, high = Estimate(0.2, 0.1, 0.3, 4), Estimate(0.8, 0.7, 0.9, 4)
    rows = [
        guidance.Row(v, w, e, e, e, e, e, over, over, over)
        for v in guidance.VARIANTS
        for w, e, over in ((0.0, low, TIE), (3.0, high, BELOW))
    ]
    told = guidance.paragraph(rows)
    assert "own-class share rises from 20.0 %" in told
    assert "closer at w = 3" in told
    assert told.count("w = 3: lower own-class share, fewer off the data") == len(guidance.VARIANTS) - 1
    backwards = guidance.paragraph([replace(row, own=low if row.w else high) for row in rows])
    assert "own-class share falls from 80.0 %" in backwards


def test_the_labelled_mixture_judges_exact_draws_rightly() -> None:
    task = guidance.Labelled.usual()
    x, component = task.data.draw(20_000, torch.Generator().manual_seed(0))
    assert math.isclose(task.off(x), 0.01, abs_tol=0.004)
    # Bayes' classifier is right about far modes: the first of the class, and the last of the others.
    assert task.own_share(x[component == 0]) > 0.999
    assert task.own_share(x[component == 5]) < 0.001
    assert task.modes(task.own.draw(3000, torch.Generator().manual_seed(1))[0]) == 1
    when = torch.tensor(0.4, dtype=torch.float64)
    close(cfg(task.many, -1.0)(x[:50], when), task.data.denoise(x[:50], when), rtol=0, atol=0)


def test_ode_vs_sde_tells_what_its_table_holds() -> None:
    found, rows = tiny("ode-vs-sde")[0].paragraph, table("ode-vs-sde")
    assert {r["sampler"] for r in rows if r["kind"] == "stochastic"} == {*STOCHASTIC, *HALF_STOCHASTIC}
    for denoiser in ode_vs_sde.WRONG:
        mine = [r for r in rows if r["kind"] == "difference" and r["denoiser"] == denoiser]
        for row in mine:
            over = row["energy distance x 1000"]
            word = "helps" if over.high < 0 else "hurts" if over.low > 0 else "makes no difference that shows"
            sentence = next(s for s in found.split("On ring, ") if s.startswith(f"denoiser {denoiser},"))
            assert re.search(rf"fresh noise {word} with [^a-z]*(and )?[^a-z]*{row['calls']}", sentence)


@pytest.mark.parametrize(("over", "word"), [(BELOW, "helps"), (ABOVE, "hurts"), (TIE, "makes no difference")])
def test_ode_vs_sde_claims_turn_with_the_numbers(over: Estimate, word: str) -> None:
    rows = [
        ode_vs_sde.Row("ring", denoiser, kind, "any", 10, over, over)
        for denoiser in ("exact", "wrong where noise > 1")
        for kind in ("difference", *ode_vs_sde.KINDS)
    ]
    told = ode_vs_sde.paragraph(rows)
    assert told.count(f"fresh noise {word}") == 2
    assert "These are 2 verdicts" in told


def test_a_wrong_denoiser_errs_where_and_as_much_as_it_says() -> None:
    data = Mixture.ring(Cosine())
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoise = ode_vs_sde.wrong(data, 1.0, math.inf, size=0.3, seed=0)
    for t in (0.3, 0.6, 0.9):
        when = torch.tensor(t, dtype=torch.float64)
        error = denoise(x, when) - data.denoise(x, when)
        most = 0.3 * float(data.path.sigma(when)) if t > 0.5 else 0.0  # noise equals signal at t = 0.5
        assert float(error.abs().max()) <= most + 1e-12
        assert float(error.abs().max()) >= 0.99 * most


def test_solver_order_tells_what_its_table_holds() -> None:
    found, rows = tiny("solver-order")[0].paragraph, table("solver-order")
    orders = {(r["data"], r["sampler"]): r["order"] for r in rows if r["order"] is not None}
    # Their order in theory; multistep solvers of order 3 start with a step of order 1.
    known = {"ddim": 1, "heun": 2, "rk4": 4, "dpm-solver-2": 2, "dpm-solver-3": 3, "dpm-solver++-2s": 2, "adams": 2}
    for sampler, order in known.items():
        assert abs(orders["mixture", sampler].value - order) < 0.3
        assert re.search(rf"{re.escape(sampler)} {order - 1}\.[7-9]|{re.escape(sampler)} {order}\.[0-3]", found)


@pytest.mark.parametrize("order", [1, 2, 3.5])
def test_the_order_of_a_power_is_its_exponent(order: float) -> None:
    found = [(n, [c * n**-order for c in (0.1, 0.4, 3.0)]) for n in (8, 16, 32, 64)]
    measured = solver_order.order(found)
    assert measured is not None
    assert np.allclose([measured.value, measured.low, measured.high], order)
    assert solver_order.order([(8, [1e-3, 1e-3]), (16, [1e-13, 1e-13])]) is None


def test_the_gaussian_problem_knows_its_end() -> None:
    problem = solver_order.gaussian(Cosine(), 10, 2, steps=0, seed=0)
    grid = Cosine().time_at(torch.linspace(solver_order.LOW, solver_order.HIGH, 129, dtype=torch.float64))
    close(RK4()(problem.data.denoise, Cosine(), grid, problem.start), problem.end, rtol=1e-6, atol=1e-6)


def test_latency_budget_tells_what_its_table_holds() -> None:
    found, rows = tiny("latency-budget")[0].paragraph, table("latency-budget")
    alone = [r for r in rows if r["network"] == "none"]
    assert f"{sum(r['us a call besides'].high <= 30 for r in alone)} of {len(alone)} add at most 30 us" in found
    for row in rows:
        if row["network"] == "none":
            continue
        took = row["ms a call"].value + row["us a call besides"].value / 1e3
        assert row["calls in 100 ms"].value == 100 // took
        over = row["energy minus no solver error, x 1000"]
        sentence = next(s for s in found.splitlines() if s.startswith(f"- {row['network']} ("))
        if over is not None and over.low > 0:
            assert re.search(f"error shows for [^;]*{re.escape(row['sampler'])}", sentence)


@pytest.mark.parametrize(("over", "words"), [(ABOVE, "the solver's error shows for"), (TIE, "no solver error shows")])
def test_latency_claims_turn_with_the_numbers(over: Estimate, words: str) -> None:
    one = Estimate(10.0, 9.0, 11.0, 5)
    rows = [
        latency_budget.Row("none", None, None, "ddim", Estimate(40.0, 35.0, 45.0, 5), None, None, None),
        latency_budget.Row("net", 7, one, "ddim", one, one, one, over),
    ]
    told = latency_budget.paragraph(rows)
    assert "0 of 1 add at most 30 us, more than that ddim" in told
    assert f"{words} " in told


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
def test_samplers_share_noise_and_references_seed_by_seed() -> None:
    bench = Bench(exact("ring"), 50, 3, seed=1)
    one, two = (bench.run(DDIM(), LogSNR(low=-2.0, high=3.0), 10) for _ in range(2))
    assert one.energy == two.energy
    assert (one.calls, len(one.energy), len(set(one.energy))) == (10, 3, 3)
    assert mean(bench.run(DDIM(), LogSNR(low=-2.0, high=3.0), 2).energy).value > 3 * mean(bench.floor.energy).value


def test_feasible_is_the_most_calls_that_a_sampler_can_make() -> None:
    assert [feasible(NAMED[name], 10) for name in ("ddim", "heun", "rk4", "dpm-solver-3")] == [10, 9, 9, 10]
    assert feasible(DDIM(), 0) is None


@pytest.mark.filterwarnings("ignore:expected a terminal SNR")
def test_every_sampler_is_of_one_kind() -> None:
    kinds: Sequence[str] = [*deterministic(), *STOCHASTIC, *HALF_STOCHASTIC, "adaptive"]
    assert sorted(kinds) == sorted(NAMED)
    data, grid = exact("ring"), LogSNR(low=-2.0, high=3.0)
    run: Callable[..., torch.Tensor] = Bench(data, 4, 1).samples
    for name in STOCHASTIC:
        nfe = feasible(NAMED[name], 20)
        noise = [run(NAMED[name], grid, nfe).sets[0] for _ in range(2)]
        close(noise[0], noise[1], rtol=0, atol=0)
