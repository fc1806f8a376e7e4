"""A comparison that is interrupted, killed or spread over processes ends in the same table."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in_comparison import hasten, shrink, tiny

from noise2action.cli import main
from noise2action.commands import compare as command
from noise2action.commands.compare import CompareArgs, settings_of
from noise2action.compare import outputs, stages
from noise2action.compare import run as run_module
from noise2action.compare.methods import METHODS
from noise2action.compare.outputs import protocol
from noise2action.compare.run import Outcome, run
from noise2action.compare.settings import BLOCK, FRESH, Place
from noise2action.data.episodes import Episodes
from noise2action.data.formats import read, write
from noise2action.envs import pusht, tasks
from noise2action.envs.two_routes import TwoRoutes
from noise2action.errors import ConfigError, DataError, MissingExtraError, RunLockedError, SchemaError, TaskError
from noise2action.recipes.demonstrations import routes_at
from noise2action.recipes.pusht_state import COLUMNS

BC = METHODS["bc"].label


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted comparison, and what it returned."""
    out = tmp_path_factory.mktemp("compare") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, page=True)
        return out, run(tiny(record=1), out, workers=1, command="n2a compare")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def table(out: Path) -> tuple[bytes, object]:
    """Return all that does not depend on a clock."""
    document = json.loads((out / "compare.json").read_text())
    numbers = {name: {k: v for k, v in task.items() if k != "clock"} for name, task in document["tasks"].items()}
    return (out / "table.csv").read_bytes(), (numbers, document["summary"])


def few_figures(patch):
    """Draw one figure, which needs learned rows: all take seconds."""
    patch.setattr(outputs, "FIGURES", {"jumps": outputs.FIGURES["jumps"]})


def compared(settings, out, workers=1):
    return run(settings, out, workers=workers, command="n2a compare")


def test_every_method_ran_the_same_episodes_and_one_training_serves_two_samplers(whole):
    out, outcome = whole
    assert outcome.findings == ()
    (task,) = outcome.tasks
    assert [row.method.name for row in task.rows] == ["demonstrator", "random", "nearest", "bc", "ddim"]
    for row in task.rows:
        assert row.evaluation.seeds == list(range(FRESH, FRESH + 6))
        assert (row.paired is not None) == (row.method.name != "bc")
    trained = {path.name for path in (out / "tasks" / "two_routes" / "runs").iterdir()}
    assert trained == {"nearest-seed0", "bc-seed0", "diffusion-seed0"}


def test_all_outputs_are_there_and_say_where_they_come_from(whole):
    out, _ = whole
    for name in ("success", "differences", "time_to_success", "routes", "jerk", "jumps", "latency", "training"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
        assert (out / "figures" / f"{name}.svg").read_text().startswith("<?xml")
    assert (out / "videos" / f"two_routes-seed{FRESH}.mp4").stat().st_size > 1000
    assert (out / "figures" / "failures-two_routes.png").exists()
    document = json.loads((out / "compare.json").read_text())
    page, text = (out / "compare.html").read_text(), (out / "table.md").read_text()
    for said in ("n2a compare", document["environment"]["hardware"], f"torch {torch.__version__}"):
        assert said in page
        assert said in text
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["method"] for row in rows] == list(document["tasks"]["two_routes"]["methods"])
    assert not any("ms" in column or "train_s" in column for column in rows[0])
    assert {row["method"] for row in csv.DictReader((out / "timings.csv").open())} == {"nearest", "bc", "ddim"}


def test_every_method_begins_an_episode_with_the_same_observation(tmp_path, monkeypatch):
    begun, rollout = {}, stages.rollout

    def watched(task, policy, seeds, **options):
        results = rollout(task, policy, seeds, **options)
        for result in results:
            first = {name: seen[0].tolist() for name, seen in result.trace.observations.items()}
            begun.setdefault(result.seed, []).append(first)
        return results

    monkeypatch.setattr(stages, "rollout", watched)
    compared(tiny(methods=("random", "nearest", "bc")), tmp_path)
    assert sorted(begun) == list(range(FRESH, FRESH + 6))
    assert all(len(met) == 3 and met[0] == met[1] == met[2] for met in begun.values())
    assert len({str(met[0]) for met in begun.values()}) == 6


@pytest.mark.parametrize("failing", [("bc", FRESH + 4), ("bc ddim", FRESH)])
def test_what_fails_is_a_finding_and_the_page_shows_the_others(tmp_path, monkeypatch, failing):
    monkeypatch.undo()
    shrink(monkeypatch, page=True)
    few_figures(monkeypatch)
    methods, first = failing
    evaluate = stages._evaluate

    def diverges(settings, place, name, seed, block, tell):
        if name in methods.split() and block[0] >= first:
            raise DataError("expected finite actions, got NaN")
        evaluate(settings, place, name, seed, block, tell)

    monkeypatch.setattr(stages, "_evaluate", diverges)
    outcome = compared(tiny(methods=("random", "bc", "ddim"), record=1), tmp_path)
    rows = [row.method.name for row in outcome.tasks[0].rows]
    assert rows == [name for name in ("random", "bc", "ddim") if name not in methods.split()]
    assert all("got NaN" in finding for finding in outcome.findings)
    assert "got NaN" in (tmp_path / "compare.html").read_text()
    assert (tmp_path / "videos" / f"two_routes-seed{FRESH}.mp4").exists()
    monkeypatch.setattr(stages, "_evaluate", evaluate)
    monkeypatch.setattr(run_module, "write_page", lambda *_, **__: None)
    outcome = compared(tiny(methods=("random", "bc", "ddim"), record=1), tmp_path)
    assert outcome.findings == ()
    assert len(outcome.tasks[0].rows) == 3


@pytest.mark.slow
def test_a_comparison_of_two_processes_goes_on_after_an_interrupt(tmp_path):
    """By the command itself: an interrupt reaches it, and the processes that it began."""
    words = ("--tasks", "two_routes", "--methods", "bc", "ddim", "--demonstrations", "10", "--train.steps", "300")
    words += ("--episodes", "60", "--record", "0", "--workers", "2")
    tables = []
    for name in ("whole", "interrupted"):
        out = tmp_path / name
        command = [sys.executable, "-m", "noise2action", "compare", "navigation", *words, "--out", str(out)]
        if name == "interrupted":
            begun = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
            sign, deadline = Place(out, "two_routes").run("bc", 0) / "metrics.jsonl", time.monotonic() + 120
            while not sign.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.killpg(begun.pid, signal.SIGINT)
            said = begun.communicate(timeout=120)[1]
            assert begun.returncode == 130
            assert "the same command goes on" in said
            assert "Traceback" not in said
            assert not (out / "table.csv").exists()
        subprocess.run(command, check=True, capture_output=True)
        tables.append(table(out))
    assert tables[0] == tables[1]


def _run_until_killed(out: str) -> None:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        run(tiny(record=1), Path(out), workers=1, command="n2a compare")


@pytest.mark.parametrize("after", ["parts", "runs/bc-seed0/checkpoints", f"episodes/bc/training0-from{FRESH}.json"])
def test_a_comparison_that_is_killed_and_run_again_has_the_same_table(whole, tmp_path, after):
    child = multiprocessing.get_context("fork").Process(target=_run_until_killed, args=(str(tmp_path),))
    child.start()
    sign, deadline = tmp_path / "tasks" / "two_routes" / after, time.monotonic() + 60
    while child.is_alive() and not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "table.csv").exists()
    compared(tiny(record=1), tmp_path)
    assert table(tmp_path) == table(whole[0])
    assert not (tmp_path / "tasks" / "two_routes" / "parts").exists()


def test_episodes_that_are_there_are_not_run_again(whole, tmp_path, monkeypatch):
    calls = []
    rollout = stages.rollout

    def interrupted(task, policy, seeds, **options):
        calls.append(list(seeds))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return rollout(task, policy, seeds, **options)

    monkeypatch.setattr(stages, "rollout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(tiny(record=1), tmp_path)
    compared(tiny(record=1), tmp_path)
    # Four methods of two blocks each; one block was begun twice.
    assert len(calls) == 8 + 1
    assert calls.count(calls[3]) == 4 + 1
    assert table(tmp_path) == table(whole[0])
    compared(tiny(record=1), tmp_path)
    assert len(calls) == 9  # nothing is left to do
    assert table(tmp_path) == table(whole[0])


@pytest.mark.slow
def test_several_processes_end_in_the_same_table_as_one(tmp_path, monkeypatch):
    monkeypatch.undo()  # other processes shrink nothing
    hasten(monkeypatch)
    settings = tiny(methods=("bc", "ddim"), train_steps=2, episodes=BLOCK + 2)
    for workers in (1, 2):
        outcome = compared(settings, tmp_path / f"{workers}", workers=workers)
        assert outcome.findings == ()
        assert [len(row.evaluation.results) for row in outcome.tasks[0].rows] == [BLOCK + 2] * 2
    assert table(tmp_path / "2") == table(tmp_path / "1")


def published(task: str, path: Path) -> None:
    """Write a data set as people publish it: PushT's features packed into one array, and no word on routes."""
    env, steps = tasks.find(task).make(), []
    env.action_space.seed(0)
    for seed in range(2):
        seen = env.reset(seed=seed)[0]
        # Here and there: how good they are has no part in this.
        for _ in range(30):
            action = env.action_space.sample()
            steps.append({**seen, "action": action})
            seen = env.step(action)[0]
    arrays = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    if task == "pusht":
        arrays["state"] = np.concatenate([arrays.pop(column.feature) for column in COLUMNS], axis=1)
    write(path, Episodes(arrays, np.array([30, 60])))


@pytest.mark.parametrize(("suite", "task"), [("navigation", "two_routes"), ("pusht", "pusht")])
def test_given_demonstrations_stand_in_for_a_demonstrator(tmp_path, capsys, monkeypatch, suite, task):
    monkeypatch.undo()
    shrink(monkeypatch, page=True)
    few_figures(monkeypatch)
    monkeypatch.setattr(pusht, "MAX_STEPS", 60)
    path, out = tmp_path / "people.zarr", tmp_path / "out"
    published(task, path)
    methods = ("demonstrator", "random", "nearest", "bc")
    budget = ("--train.steps", "2", "--episodes", "2", "--record", "0", "--workers", "1")
    words = ("--tasks", task, "--data", str(path), "--methods", *methods, *budget, "--out", str(out))
    assert main(["compare", suite, *words]) == 0
    assert BC in capsys.readouterr().out
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["method"] for row in rows] == list(methods[1:])
    # Which routes were demonstrated is unknown, those that are taken are seen where a task has any.
    assert {row["modes_found"] for row in rows} == {row["demonstrated_entropy_bit"] for row in rows} == {""}
    assert all(bool(row["routes"]) == (task == "two_routes") for row in rows)
    document = json.loads((out / "compare.json").read_text())
    assert document["settings"]["data"] == str(path)
    assert document["tasks"][task]["demonstrations"] is None
    assert not Place(out, task).demonstrations.exists()
    for page in ((out / "compare.html").read_text(), (out / "table.md").read_text()):
        assert "Given demonstrations, the same for every method" in page
        assert "attempts" not in page
        assert "The demonstrator" not in page


def test_generated_demonstrations_bring_their_routes(tmp_path):
    path = tmp_path / "two_routes.npz"
    assert main(["data", "generate", "two_routes", "--episodes", "6", "--out", str(path)]) == 0
    (task,) = compared(tiny(methods=("random", "bc"), data=str(path)), tmp_path / "out").tasks
    assert task.demonstrated is None
    assert task.row("bc").evaluation.reference == routes_at(path) != {}


def test_demonstrations_of_another_task_are_told_before_anything_is_done(tmp_path):
    path = tmp_path / "two_routes.npz"
    assert main(["data", "generate", "two_routes", "--episodes", "4", "--out", str(path)]) == 0
    settings = tiny(suite="pusht", tasks=("pusht",), methods=("random", "bc"), data=str(path))
    with pytest.raises(SchemaError, match=r"expected the features .* of pusht"):
        compared(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_episodes_of_other_seeds_are_refused(tmp_path):
    settings = tiny(methods=("random", "bc"))
    compared(settings, tmp_path)
    path = Place(tmp_path, "two_routes").block("bc", 0, FRESH)
    entries = json.loads(path.read_text())
    path.write_text(json.dumps(entries[:-1]))
    with pytest.raises(DataError, match=rf"expected the episodes {FRESH} to {FRESH + 3}, got others: delete the file"):
        compared(settings, tmp_path)


def test_a_task_that_is_seen_through_a_camera_is_compared_too(tmp_path):
    name = "two_routes@top:32"
    settings = tiny(
        tasks=(name,), methods=("demonstrator", "random", "bc", "ddim"), train_steps=2, episodes=2, record=0
    )
    (task,) = compared(settings, tmp_path).tasks
    assert [row.method.name for row in task.rows] == list(settings.methods)
    assert read(Place(tmp_path, name).demonstrations).arrays["top"].shape[1:] == (32, 32, 3)
    # What is seen, and by whom, changes no episode of those who look at nothing.
    plain = tiny(methods=("random", "nearest"), demonstrations=2, train_steps=2, episodes=2)
    (unseen,) = compared(plain, tmp_path / "plain").tasks
    assert unseen.row("random").evaluation.results == task.row("random").evaluation.results
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {row["task"] for row in rows} == {name}


def test_the_protocol_tells_of_the_methods_that_were_compared():
    said = {"demonstrator": "The demonstrator sees the whole state", "random": "Random actions are uniform"}
    for methods in (("bc",), ("bc", "random"), ("demonstrator", "random", "bc")):
        text = protocol(tiny(methods=methods), command="n2a compare")
        assert {name for name, words in said.items() if words in text} == set(methods) - {"bc"}


def test_off_a_terminal_each_piece_of_work_is_a_line(tmp_path, capsys):
    compared(tiny(methods=("bc", "nearest", "random")), tmp_path)
    said = [line.rpartition(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "demonstrations 4 of 4: two_routes: demonstrations",
        "trainings 1 of 2: two_routes: training of nearest, seed 0",
        "trainings 2 of 2: two_routes: training of bc, seed 0",
        *(
            f"episodes {done} of 18: two_routes: episodes of {label}"
            for label, counts in (("random actions", (4, 6)), ("nearest neighbour", (10, 12)), (BC, (16, 18)))
            for done in counts
        ),
        "timings 1 of 2: two_routes: timing of nearest neighbour",
        f"timings 2 of 2: two_routes: timing of {BC}",
    ]
    compared(tiny(methods=("bc", "nearest", "random")), tmp_path)
    assert capsys.readouterr().err == ""


def test_several_trainings_are_pooled_and_paired_by_training_and_episode(tmp_path):
    (task,) = compared(tiny(seeds=2, methods=("bc", "ddim", "random")), tmp_path).tasks
    assert [len(row.evaluation.results) for row in task.rows] == [6, 12, 12]
    assert task.row("ddim").paired.success.difference.n == 12
    assert task.row("random").paired is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"episodes": 7}, "--episodes: expected 6, which .* begun with, got 7"),
        ({"train_steps": None}, "--train.steps: expected 12, .* got the recipe's own"),
        ({"methods": ("bc",)}, "--methods: expected demonstrator random nearest bc ddim, .* got bc"),
        ({"seed": 3}, "--seed: expected 0, .* got 3"),
    ],
)
def test_a_changed_setting_is_named(whole, changed, told):
    with pytest.raises(ConfigError, match=told):
        compared(tiny(**{"record": 1, **changed}), whole[0])


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="--out: expected a new folder or a comparison"):
        compared(tiny(), tmp_path)


def test_a_demonstrator_that_never_succeeds_is_a_finding_and_the_others_go_on(tmp_path, monkeypatch):
    good = tasks.TASKS["two_routes"]
    bad = replace(good, name="maze", demonstrate=lambda seed: replace(good.demonstrate(seed), success=False))
    monkeypatch.setitem(tasks.TASKS, "maze", bad)
    settings = tiny(tasks=("maze", "two_routes"), methods=("bc", "nearest"))
    outcome = compared(settings, tmp_path)
    assert [task.task for task in outcome.tasks] == ["two_routes"]
    (finding,) = outcome.findings
    assert finding.startswith("maze: demonstrations: expected 4 successful demonstrations of maze, got 0 in")
    assert json.loads((tmp_path / "compare.json").read_text())["findings"] == [finding]


def test_a_missing_simulator_is_told_before_anything_runs(tmp_path, monkeypatch):
    def missing():
        raise MissingExtraError("mujoco", "sim")

    monkeypatch.setitem(tasks.TASKS, "maze", replace(tasks.TASKS["maze"], make=missing))
    with pytest.raises(MissingExtraError, match=r"pip install 'noise2action\[sim\]'"):
        compared(tiny(tasks=("two_routes", "maze")), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_camera_that_cannot_draw_is_told_before_anything_runs(tmp_path, monkeypatch):
    class Blind(TwoRoutes):
        def reset(self, **_):
            raise TaskError("expected a renderer")

    seen = tasks.find("two_routes@top:32")
    monkeypatch.setattr(run_module, "find", lambda name: replace(seen, make=Blind))
    with pytest.raises(TaskError, match="expected a renderer"):
        compared(tiny(tasks=("two_routes@top:32",), methods=("bc",), record=0), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("navgation",), "expected a suite, got 'navgation'; known: .*did you mean 'navigation'"),
        (("navigation", "--tasks", "pusht"), "--tasks: expected a task of navigation, got 'pusht'"),
        (("navigation", "--methods", "bc", "gail"), "--methods: expected a method, got 'gail'; known: bc"),
        (("navigation", "--methods", "random"), "--methods: expected one that learns at least"),
        (("navigation", "--methods", "bc", "bc"), "--methods: expected distinct names"),
        (("navigation", "--episodes", "1"), "--episodes: expected a number >= 2, got 1"),
        (("navigation", "--record", "21"), "--record: expected at most 20, .* got 21: film fewer"),
        (("navigation", "--train.steps", "0"), "--train.steps: expected a number >= 1, got 0"),
        (("navigation", "--train.minutes", "inf"), "--train.minutes: expected a finite number above 0, got inf"),
        (("navigation", "--train.minutes", "nan"), "--train.minutes: expected a finite number above 0, got nan"),
        (("navigation", "--train.steps", "9", "--train.minutes", "1"), "--train.minutes: expected a budget in minutes"),
        (("navigation", "--quick", "--full"), "--full: expected --quick or --full, got both"),
        (
            ("manipulation", "--tasks", "grasp_seen@table:96", "--methods", "bc", "nearest"),
            "--methods: expected no nearest where pictures are observed, .* got it for grasp_seen@table:96: leave",
        ),
        (("navigation", "--data", "x.zarr"), "--data: expected it with one task"),
        (("pusht", "--data", "nowhere.zarr"), "nowhere.zarr: no such file or folder"),
        (("navigation", "--workers", "-1"), "--workers: expected a number >= 0, got -1"),
        (("navigation", "--steps", "9"), "unknown option '--steps'"),
    ],
)
def test_wrong_words_are_told_in_one_line(tmp_path, capsys, words, told):
    assert main(["compare", *words, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert re.search(told, said), said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_nearest_is_left_out_where_pictures_are_observed_unless_it_is_named(tmp_path, capsys, monkeypatch):
    seen = settings_of(CompareArgs("manipulation", tmp_path, tasks=("grasp_seen@table:96", "push_block")))
    assert set(METHODS) - set(seen.methods) == {"nearest"}
    assert settings_of(CompareArgs("manipulation", tmp_path)).methods == tuple(METHODS)
    monkeypatch.setattr(command, "run", lambda *_, **__: Outcome((), ()))
    assert main(["compare", "manipulation", "--tasks", "grasp_seen@table:96", "--out", str(tmp_path / "new")]) == 0
    assert "note: nearest is left out, as grasp_seen@table:96 observes pictures" in capsys.readouterr().err


def test_a_comparison_in_use_is_left_alone(tmp_path):
    from noise2action.train.folder import locked  # noqa: PLC0415

    with locked(tmp_path), pytest.raises(RunLockedError, match="in use"):
        compared(tiny(), tmp_path)
    assert Place(tmp_path, "grasp_seen@corner2:96").name == "grasp_seen_corner2_96"
