"""Studies of the forward process, of information and of training: every claim is recomputed from the table."""

import csv
import io
import math
from collections.abc import Callable
from functools import lru_cache

import pytest

from noise2action.diffusion.paths import VE, Schedule, Straight
from noise2action.evaluate.statistics import Estimate
from noise2action.studies import bits, prediction_targets, schedules, time_sampling
from noise2action.studies.study import Findings, Settings, find, table_csv

NAMES = ("forward", "schedules", "loss-by-time", "information", "time-sampling", "prediction-targets")
Row = dict[str, object]


@lru_cache
def findings(name: str) -> Findings:
    return find(name).run(Settings("tiny", seed=3), lambda done, total: None)


def rows(name: str) -> list[Row]:
    found = findings(name)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def at(row: Row, column: str) -> Estimate:
    value = row[column]
    assert isinstance(value, Estimate), column
    return value


def holds(estimate: Estimate, value: float) -> bool:
    return estimate.low - 1e-9 <= value <= estimate.high + 1e-9


def word(estimate: Estimate, below: str, above: str, tie: str) -> str:
    return below if estimate.high < 0 else above if estimate.low > 0 else tie


@pytest.mark.parametrize("name", NAMES)
def test_a_study_reports_finite_numbers_inside_their_intervals(name: str):
    found = findings(name)
    for row in found.rows:
        for cell in row:
            if isinstance(cell, Estimate):
                assert math.isfinite(cell.value)
                assert cell.low <= cell.value <= cell.high
                assert cell.n >= 2
    written = list(csv.reader(io.StringIO(table_csv(found))))
    assert len(written) == len(found.rows) + 1
    assert len({len(line) for line in written}) == 1
    assert found.figure.get_axes()
    assert "nan" not in found.paragraph


def test_a_study_is_a_function_of_its_seed():
    seen: list[tuple[int, int]] = []
    again = find("information").run(Settings("tiny", seed=3), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert table_csv(again) == table_csv(findings("information"))
    assert again.paragraph == findings("information").paragraph
    other = find("information").run(Settings("tiny", seed=4), lambda done, total: None)
    assert table_csv(other) != table_csv(again)


def test_forward_claims_follow_from_its_rows():
    table, text = rows("forward"), findings("forward").paragraph
    for row in table:
        path = Schedule(steps=1000, name=str(row["schedule"]))  # pyright: ignore[reportArgumentType]
        assert row["alpha"] == pytest.approx(math.sqrt(float(path.alpha_bar[int(str(row["step"]))])))
        assert row["alpha"] ** 2 + row["sigma"] ** 2 == pytest.approx(1.0)  # type: ignore[operator]
        if row["step"]:
            ratio = 20 * math.log10(float(str(row["alpha"])) / float(str(row["sigma"])))
            assert row["SNR (dB)"] == pytest.approx(ratio)
    agree = sum(holds(at(r, "correlation with x0"), float(str(r["correlation with x0, exact"]))) for r in table)
    assert f"in {agree} of 12 rows" in text
    apart = sum(at(r, "less that of two jumps").low > 0 for r in table)
    assert f"each other in {12 - apart} of 12 rows" in text
    half = {r["schedule"]: at(r, "correlation with x0") for r in table if r["step"] == 500}
    assert ("linear destroys the data earlier" in text) == (half["linear"].high < half["cosine"].low)
    for name in ("linear", "cosine"):
        far = [int(str(r["step"])) for r in table if r["schedule"] == name and at(r, "less that of two priors").low > 0]
        rest = [k for k in (0, 100, 300, 500, 800, 1000) if k > max(far, default=-1)]
        wanted = f"from step {rest[0]} on the energy" if rest else "the energy distance still tells"
        assert wanted in next(s for s in text.split(". ") if f"On the {name} schedule" in s)


def test_schedules_claims_follow_from_its_rows():
    table, text = rows("schedules"), findings("schedules").paragraph
    left = [r["schedule"] for r in table if float(str(r["terminal SNR"])) > 1e-3]
    assert left == ["not rescaled, T = 100", "scaled-linear"]
    assert text.startswith(f"{len(left)} of {len(table)} schedules leave")
    # abar of the betas of 1000 steps on 100: 0.364, the number that circulates.
    assert "not rescaled, T = 100 (36 % of the power)" in text
    assert pytest.approx([1e-4 + k * (0.02 - 1e-4) / 99 for k in range(100)]) == schedules.SHORT
    good = sum(not at(r, "over data to data, 100 calls").low > 0 for r in table)
    assert f"{good} of {len(table)} schedules cannot be told from data at 100 calls" in text
    for column, name in (("energy distance, 100 calls", "worst samples are those of"), ("noise", "of its steps below")):
        if column == "noise":
            top = max(table, key=lambda r: float(str(r["steps that are nearly noise (%)"])))
            assert f"{top['schedule']} spends" in text
            assert name in text
        else:
            top = max(table, key=lambda r: at(r, column).value)
            assert f"{name} {top['schedule']}:" in text
    best = min(table, key=lambda r: at(r, "energy distance, 10 calls").value)
    assert f"{best['schedule']} is best" in text


def test_shares_of_steps_are_those_of_the_closed_forms():
    # (1 - t) / t above 10 and below 1 / 10.
    noise, data = schedules.shares(Straight())
    assert noise == pytest.approx(1 / 11, abs=1e-3)
    assert data == pytest.approx(1 / 11, abs=1e-3)
    path = VE()
    noise, _ = schedules.shares(path)
    assert noise == pytest.approx(math.log(80 / 10) / math.log(80 / 0.01), abs=1e-3)


def test_loss_by_time_claims_follow_from_its_rows():
    table, text = rows("loss-by-time"), findings("loss-by-time").paragraph
    for name in ("epsilon", "clean", "v", "score", "velocity", "EDM"):
        mine = [r for r in table if r["target"] == name]
        for column in ("share of the loss (%)", "share of the excess (%)"):
            assert sum(at(r, column).value for r in mine) == pytest.approx(100)
        top = max(mine, key=lambda r: at(r, "share of the loss (%)").value)
        share = at(top, "share of the loss (%)").value
        assert f"{name} t = {top['t from']:g} to {top['t to']:g} ({share:.0f} %)" in text
        gap = max(mine, key=lambda r: at(r, "share of the excess (%)").value)
        assert f"{name} t = {gap['t from']:g} to {gap['t to']:g}" in text.split("left to learn")[1]
    held = sum(holds(at(r, "loss less both"), 0.0) for r in table)
    assert f"in {held} of {len(table)} rows" in text


def test_information_claims_follow_from_its_rows():
    table, text = rows("information"), findings("information").paragraph
    closed = [r for r in table if r["data"] == "Gaussian" and r["part"] == "destroyed"]
    total = 0.5 * sum(math.log2((1 + 1e4 * v) / (1 + 1e-3 * v)) for v in (1.8, 0.2)) / 2
    assert sum(float(str(r["bits a dimension"])) for r in closed) == pytest.approx(total, rel=1e-6)
    assert f"add up to {total:.4f}" in text
    codes = [float(str(r["less exact"])) for r in table if r["data"] == "Gaussian" and r["part"] == "code"]
    assert codes[0] > codes[-1] > 0
    assert "falling all the way" in text
    ring = {(r["part"], r["denoiser"], r["at"]): r for r in table if r["data"] == "ring"}
    exact = [r for (part, denoiser, _), r in ring.items() if (part, denoiser) == ("destroyed", "exact")]
    held = sum(holds(at(r, "less exact"), 0.0) for r in exact)
    assert f"in {held} of {len(exact)} bands" in text
    waste = [r for (part, denoiser, _), r in ring.items() if (part, denoiser) == ("destroyed", "network")]
    top = max(waste, key=lambda r: at(r, "less exact").value)
    assert f"wastes most from {top['at']}: {at(top, 'less exact').value:.3f}" in text
    network = ring["code", "network", bits.CONTINUOUS]
    assert f"the network {at(network, 'bits a dimension').value:.2f}" in text
    words = word(at(network, "less exact"), "less than", "more than", "not told from")
    assert f"bits, {words} nothing" in text
    limit = at(ring["code", "exact", bits.CONTINUOUS], "less exact")
    assert f"{limit.value:+.3f} [{limit.low:+.3f}, {limit.high:+.3f}] from -log p" in text


def test_the_gaussians_code_is_a_closed_form():
    # Two steps: the staircase of mmse between the ends of the range, written out.
    (row,) = bits.gaussian_codes([2])
    low, high, nats = 1e-3, 1e4, 0.0
    for v in (1.8, 0.2):
        nats += low * v / 2 + (high - low) / 2 * v / (1 + low * v) + high / 2 * v / (1 + high * v)
        nats += math.log(2 * math.pi / high) / 2
    assert row.measured[0] == pytest.approx(nats / (2 * math.log(2)) + 7)


def test_time_sampling_claims_follow_from_its_rows():
    table, text = rows("time-sampling"), findings("time-sampling").paragraph
    base, *others = table
    assert base["times and weight"] == time_sampling.BASE
    for what, column in (("fraction of samples", "off the support"), ("energy distance", "energy distance")):
        unit = " (%)" if column == "off the support" else ""
        gaps = {r["times and weight"]: at(r, f"{column}, less uniform's{unit}") for r in others}
        words = {name: word(gap, "better", "worse", "tie") for name, gap in gaps.items()}
        sentence = next(s for s in text.split("By the ") if s.startswith(what))
        ties = sum(w == "tie" for w in words.values())
        assert f"{ties} of {len(others)} cannot be told from it" in sentence
        for name, found in words.items():
            assert (f" {name}" in sentence.split(" cannot be told")[0]) == (found != "tie")
    best = min(table, key=lambda r: at(r, "off the support (%)").value)
    assert f"are those of {best['times and weight']}:" in text
    for row in others:
        if row["times and weight"] in time_sampling.SAME:
            gap = at(row, "gradient spread, less uniform's (%)")
            words = word(gap, "less", "more", "not told apart")
            assert f"{row['times and weight']} {gap.value:+.2g} [{gap.low:+.2g}, {gap.high:+.2g}], {words}" in text
    # Two columns of samples, and two spreads of the laws that can be compared.
    verdicts = 2 * len(others) + 2 * (len(time_sampling.SAME) - 1)
    assert f"{verdicts} verdicts by 95 % intervals, of which about {0.05 * verdicts:.1f} are expected" in text


def test_prediction_targets_claims_follow_from_its_rows():
    table, text = rows("prediction-targets"), findings("prediction-targets").paragraph
    trained = [r for r in table if r["error"] is None]
    refused = [str(r["target"]) for r in table if r["error"] is not None]
    # The noise and the score say nothing of x0 where alpha = 0.
    assert refused == ["epsilon", "score"]
    assert "epsilon, score cannot be trained" in text
    assert all("cannot start at t=1" in str(r["error"]) for r in table if r["error"] is not None)
    pick: Callable[[Row, int], float] = lambda r, nfe: at(r, f"off the support (%), {nfe} calls").value  # noqa: E731
    for nfe in (prediction_targets.FEW, prediction_targets.MANY):
        level = {str(r["target"]): pick(r, nfe) for r in trained}
        best, worst = (choose(level, key=lambda name: level[name]) for choose in (min, max))
        assert f"At {nfe} calls {best} has the fewest samples off the support ({level[best]:.1f} %" in text
        assert f"the most: {worst}, {level[worst]:.1f} %" in text
    more = [str(r["target"]) for r in trained if at(r, "off the support, 5 less 50 calls (%)").low > 0]
    assert (f"for {', '.join(more)}." in text) if more else ("For no target do more calls" in text)
