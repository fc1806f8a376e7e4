"""Evaluations: the numbers follow from the episodes, and the JSON is read back or refused."""

import io
import json
import math

import pytest
from rich.console import Console

from noise2action.errors import DataError, StorageError
from noise2action.evaluate.latency import Latency, Percentiles
from noise2action.evaluate.result import About, Evaluation, compare
from noise2action.evaluate.rollouts import EpisodeResult
from noise2action.evaluate.statistics import Estimate, bootstrap_mean, wilson
from noise2action.evaluate.tables import compact, comparison_table, percent, points, table

FIXED_KEYS = {
    *("success_rate", "success_ci95", "score_mean", "score_ci95", "episodes", "seeds"),
    *("nfe", "sampler", "latency_ms", "routes"),
}


def episode(seed, success, *, route=None, jerk=1.0):
    return EpisodeResult(seed, success, 1.0 if success else 0.25, 50 + seed, route, jerk, 0.2, 0.1)


def evaluation(outcomes, *, policy="diffusion", routes=None, **kwargs):
    about = About("two_routes", policy, "ema", "DDIM", 8, 10.0, 8, "m/s", hardware="a computer", created="2026-01-02")
    results = [episode(k, o, route=routes and routes[k], jerk=1.0 + k) for k, o in enumerate(outcomes)]
    return Evaluation(about, tuple(results), **kwargs)


@pytest.fixture
def full():
    latency = Latency(
        Percentiles(4.0, 9.0), {"encode": Percentiles(1.0, 2.0), "denoise": Percentiles(3.0, 7.0)}, 100, 1
    )
    return evaluation(
        [True, True, False, True],
        routes=["left", "right", "none", "left"],
        latency=latency,
        reference={"left": 0.5, "right": 0.5},
    )


def test_the_document_holds_the_fixed_keys_and_follows_from_the_episodes(full):
    document = json.loads(full.to_json())
    assert set(document) >= FIXED_KEYS
    rate, score = wilson(3, 4), bootstrap_mean([1.0, 1.0, 0.25, 1.0], 0, bounds=(0.0, 1.0))
    assert document["success_rate"] == 0.75
    assert document["success_ci95"] == [rate.low, rate.high]
    assert (document["score_mean"], document["score_ci95"]) == (score.value, [score.low, score.high])
    assert (document["episodes"], document["seeds"]) == (4, [0, 1, 2, 3])
    assert document["latency_ms"] == {"p50": 4.0, "p99": 9.0}
    assert document["latency_stages_ms"]["denoise"] == {"p50": 3.0, "p99": 7.0}
    assert document["routes"] == {"left": 0.5, "none": 0.25, "right": 0.25}
    assert document["modes"]["coverage"] == 1
    assert document["smoothness"]["jerk"]["mean"] == 2.5
    assert [e["seed"] for e in document["per_episode"]] == [0, 1, 2, 3]
    assert document["per_episode"][2]["route"] == "none"


def test_json_comes_back_equal(full, tmp_path):
    assert Evaluation.from_json(full.to_json()) == full
    bare = evaluation([False])
    assert Evaluation.from_json(bare.to_json()) == bare
    assert bare.routes is None
    full.write(tmp_path / "a" / "evaluation.json")
    assert Evaluation.from_json((tmp_path / "a" / "evaluation.json").read_text()) == full
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(succes_rate=1), "did you mean"),
        (lambda d: d.pop("nfe"), "nfe"),
        (lambda d: d.pop("success_ci95"), "success_ci95"),
        (lambda d: d.update(nfe="8"), "nfe"),
        (lambda d: d.update(nfe=True), "nfe"),
        (lambda d: d.update(version=2), "version"),
        (lambda d: d.update(success_rate=1.0), "success_rate"),
        (lambda d: d.update(episodes=5), "episodes"),
        (lambda d: d.update(seeds=[3, 2, 1, 0]), "seeds"),
        (lambda d: d.update(per_episode=[]), "at least one"),
        (lambda d: d.update(per_episode={}), "list"),
        (lambda d: d.update(latency_stages_ms=[1]), "latency_stages_ms"),
        (lambda d: d.update(latency_ms={"p50": 1.0}), "p99"),
        (lambda d: d.update(reference=[0.5]), "reference"),
        (lambda d: d["per_episode"][0].update(success=1), "success"),
        (lambda d: d["per_episode"][0].update(trace=None), "trace"),
        (lambda d: d["per_episode"][0].pop("route"), "route"),
        (lambda d: d["per_episode"][0].update(score=math.nan), "finite"),
    ],
)
def test_a_changed_document_is_refused(full, change, words):
    document = json.loads(full.to_json())
    change(document)
    with pytest.raises(DataError, match=words):
        Evaluation.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}'])
def test_text_that_is_no_evaluation_is_refused(text):
    with pytest.raises(DataError):
        Evaluation.from_json(text)


def test_a_disk_that_refuses_is_a_storage_error_and_leaves_the_old_file(full, tmp_path, monkeypatch):
    path = tmp_path / "evaluation.json"
    path.write_text("old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        full.write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_comparison_is_paired_by_seed(full):
    other = evaluation([False, True, False, False], policy="bc")
    found = compare(full, other)
    assert (found.success.difference.value, found.success.only_a, found.success.only_b) == (0.5, 2, 0)
    assert found.success.p_value == 0.5
    assert found.score.value == pytest.approx(0.375)
    with pytest.raises(DataError, match="same seeds"):
        compare(full, evaluation([True]))


def test_tables_show_every_number_with_its_interval(full):
    console = Console(file=io.StringIO(), width=250)
    console.print(table([full, evaluation([True] * 4, policy="[bold]flow")]))
    console.print(comparison_table([compare(full, evaluation([False] * 4, policy="bc"))]))
    text = console.file.getvalue()
    for part in (percent(full.success), "4.0 / 9.0 ms", "left 50 %", "[bold]flow", "diffusion against bc", "0.25"):
        assert part in text


def test_numbers_are_written_to_the_same_place():
    assert percent(Estimate(0.5, 0.25, 0.75, 8)) == "50.0 % [25.0, 75.0]"
    assert points(Estimate(-0.1, -0.2, 0.05, 8)) == "-10.0 pp [-20.0, +5.0]"
    assert compact(Estimate(41.13, 39.5, 42.0, 8)) == "41.1 [39.5, 42.0]"
    assert compact(Estimate(12345.0, 9000.0, 15000.0, 8)) == "12,345 [9,000, 15,000]"
    assert compact(Estimate(0.0, 0.0, 0.0, 8)) == "0.00 [0.00, 0.00]"
    assert compact(Estimate(2.5e7, 1e7, 3e7, 8)) == "2.50e+07 [1.00e+07, 3.00e+07]"
