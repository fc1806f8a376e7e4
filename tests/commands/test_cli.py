import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noise2action.cli import VERBS, main
from noise2action.commands import overrides
from noise2action.commands.evaluate import _file_name
from noise2action.commands.sampling import resolve
from noise2action.data.formats import read
from noise2action.envs.tasks import TASKS
from noise2action.errors import ConfigError, StorageError
from noise2action.evaluate.latency import measured
from noise2action.policies import RegressionConfig
from noise2action.policies.checkpoint import complete
from noise2action.recipes import RECIPES, find
from noise2action.recipes.runs import open_policy
from noise2action.storage import atomic_write, check_place

TINY = [
    "--data.demonstrations", "6", "--data.held-out", "0.2", "--train.steps", "20", "--train.batch-size", "32",
    "--policy.net.width", "16", "--policy.net.blocks", "1", "--policy.net.condition-width", "8",
]  # fmt: skip


def run(*words):
    return main([str(w) for w in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "diffusion"
    assert run("train", "two_routes", "--out", out, *TINY) == 0
    return out


def test_the_whole_way_on_the_command_line(trained, tmp_path, capsys):
    other = trained.parent / "regression"
    assert run("train", "two_routes", "--policy", "regression", "--out", other, *TINY) == 0
    out = tmp_path / "result.json"
    words = ("eval", trained, "--episodes", 6, "--seed", 100, "--record", 1)
    assert run(*words, "--nfe", 4, "--sampler", "adams", "--compare", other, "--out", out) == 0
    found = json.loads(out.read_text())
    assert {"success_rate", "success_ci95", "score_mean", "score_ci95", "routes"} <= found.keys()
    assert (found["episodes"], found["seeds"]) == (6, list(range(100, 106)))
    assert (found["nfe"], found["sampler"]) == (4, "adams")
    assert set(found["latency_ms"]) == {"p50", "p99"}
    assert [e["seed"] for e in found["per_episode"]] == found["seeds"]
    assert "regression" in capsys.readouterr().out
    assert run("report", trained, "--compare", other) == 0
    page = (trained / "report.html").read_text()
    assert "data:video/mp4;base64" in page
    assert "Chunks being denoised" in page
    assert run("info", trained) == 0
    assert "verified" in capsys.readouterr().out


def test_the_same_evaluation_gives_the_same_episodes(trained, tmp_path):
    for name in ("a", "b"):
        assert run("eval", trained, "--episodes", 4, "--record", 0, "--out", tmp_path / f"{name}.json") == 0
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "b"))
    assert a["per_episode"] == b["per_episode"]


def test_a_run_can_be_resumed_only_as_itself(trained, capsys):
    before = {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file() and p.name != ".lock"}
    assert run("train", "two_routes", "--out", trained, *TINY, "--train.batch-size", 16) == 2
    assert "--resume" in capsys.readouterr().err
    assert {name: (trained / name).read_bytes() for name in before} == before
    assert run("train", "two_routes", "--out", trained, "--resume", *TINY[2:]) == 2
    assert "same command" in capsys.readouterr().err
    assert run("train", "two_routes", "--out", trained, "--resume", *TINY) == 0


@pytest.mark.parametrize("name", ["made.npz", "made.zarr", "made.zarr.zip", "made.episodes"])
def test_generated_data_trains_and_shows_itself(tmp_path, name, capsys):
    data = tmp_path / name
    assert run("data", "generate", "two_routes", "--out", data, "--episodes", 5, "--seed", 3) == 0
    assert len(read(data)) == 5
    assert run("info", data) == 0
    assert "healthy" in capsys.readouterr().out
    assert run("data", "generate", "two_routes", "--out", data) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("train", "two_routes", "--data", data, "--out", tmp_path / "run", *TINY[2:]) == 0


def test_precedence_is_recipe_then_file_then_flags(tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps({"train": {"steps": 7, "batch_size": 9}, "policy": "regression"}))
    words = ("train", "two_routes", "--config", tmp_path / "c.json", "--train.steps", 8, "--print-config")
    assert run(*words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"]["steps"], found["train"]["batch_size"]) == (8, 9)
    assert found["policy"]["kind"] == "regression"
    assert found["policy"]["net"]["width"] == find("two_routes").policy.net.width


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_printed_configuration_is_a_configuration(recipe, tmp_path, capsys):
    run("train", recipe, "--print-config")
    (tmp_path / "c.json").write_text(capsys.readouterr().out)
    assert overrides.apply(find(recipe), overrides.read_config(tmp_path / "c.json"), where="c") == find(recipe)


def test_a_budget_in_steps_replaces_the_recipes_minutes(capsys):
    assert run("train", "pusht_state", "--train.steps", 5, "--print-config") == 0
    found = json.loads(capsys.readouterr().out)["train"]
    assert (found["steps"], found["minutes"]) == (5, None)


def test_a_path_of_digits_is_a_path():
    assert overrides.parse(["--data", "20240101"]) == {"data": {"path": "20240101"}}


def test_comparing_with_what_cannot_be_compared_is_told_before_the_rollouts(trained, tmp_path, capsys):
    assert run("eval", trained, "--compare", tmp_path / "nowhere", "--episodes", 10**6) == 2
    assert "no such path" in capsys.readouterr().err
    assert run("eval", trained, "--out", tmp_path, "--episodes", 10**6) == 2
    assert "got a folder" in capsys.readouterr().err


def test_damaged_run_files_are_told(trained, tmp_path, capsys):
    for name in ("config.json", "data.json"):
        body = (trained / name).read_bytes()
        for bad in (b"[]", b"{", b'{"routes": 3}'):
            (trained / name).write_bytes(bad)
            assert run("eval", trained, "--episodes", 1, "--record", 0) == 2
            assert name.split(".")[0] in capsys.readouterr().err or name == "config.json"
        (trained / name).write_bytes(body)


def test_a_union_takes_a_name_and_then_its_fields():
    edits = overrides.parse(["--policy.net", "unet1d", "--policy.net.widths", "8", "16", "--policy.objective.path=ve"])
    changed = overrides.apply(find("two_routes"), edits, where="option")
    assert changed.policy.net.widths == (8, 16)
    assert type(changed.policy.objective.path).__name__ == "VE"
    later = overrides.parse(["--policy.net.widths", "8", "16", "--policy.net", "unet1d"])
    assert overrides.apply(find("two_routes"), later, where="option").policy.net == changed.policy.net


def test_a_policy_of_another_kind_keeps_network_and_conventions():
    changed = overrides.apply(find("pusht_state"), overrides.parse(["--policy", "regression"]), where="option")
    assert changed.policy == RegressionConfig(find("pusht_state").policy.spec, find("pusht_state").policy.net)


def test_every_verb_has_help(capsys):
    for name in VERBS:
        with pytest.raises(SystemExit) as stop:
            run(*name.split(), "--help")
        assert stop.value.code == 0
        assert name.split()[-1] in capsys.readouterr().out
    assert run("--help") == 0


BAD = {
    "an unknown command": (["trian"], "did you mean 'train'?"),
    "an unknown recipe": (["train", "two_rout", "--out", "x"], "did you mean 'two_routes'?"),
    "an unknown field": (["train", "two_routes", "--out", "x", "--train.stepz", "3"], "did you mean 'steps'?"),
    "an unknown option": (["eval", "x", "--episods", "3"], "did you mean '--episodes'?"),
    "a number that is none": (["train", "two_routes", "--out", "x", "--train.steps", "many"], "expected int"),
    "an infinite number": (["train", "two_routes", "--out", "x", "--train.minutes", "Infinity"], "finite"),
    "a number out of range": (["train", "two_routes", "--out", "x", "--train.steps", "0"], "positive"),
    "a singular target": (["train", "two_routes", "--out", "x", "--policy.objective.target", "epsilon"], "t<1"),
    "an unknown member": (["train", "two_routes", "--out", "x", "--policy.net", "unet"], "did you mean 'unet1d'?"),
    "a missing value": (["train", "two_routes", "--out", "x", "--train.steps"], "expected a value"),
    "no folder": (["train", "two_routes"], "--out RUN"),
    "a missing run": (["eval", "nowhere"], "no such path"),
    "a missing data set": (["info", "nowhere.npz"], "no such path"),
    "missing demonstrations": (["train", "two_routes", "--out", "x", "--data", "nowhere.npz"], "no such file"),
    "a missing config": (["train", "two_routes", "--config", "nowhere.json", "--out", "x"], "readable file"),
    "an unknown task": (["data", "generate", "push", "--out", "x.npz"], "did you mean 'pusht'?"),
    "an unknown format": (["data", "generate", "two_routes", "--out", "x.csv", "--episodes", "1"], "suffix"),
    "a grid that does not exist": (
        ["train", "two_routes", "--out", "x", "--policy.sampling.grid", "leading", "--policy.sampling.grid.table", "4"],
        "at most 4 steps",
    ),
    "more calls than steps": (
        ["train", "two_routes", "--out", "x", "--policy.objective.path", "table", "--policy.sampling.nfe", "200"],
        "fewer steps",
    ),
    "a clip in other units": (["train", "two_routes", "--out", "x", "--data.actions", "gaussian"], "clip"),
    "a negative weight": (
        [
            "train",
            "two_routes",
            "--out",
            "x",
            "--policy.objective.weight",
            "min_snr",
            "--policy.objective.weight.gamma",
            "-1",
        ],
        "gamma > 0",
    ),
    "a network of absurd size": (["train", "two_routes", "--out", "x", "--policy.net.width", "1000000"], "width"),
    "an unknown format, before the work": (["data", "generate", "pusht", "--out", "planner"], "suffix"),
    "an unparsable number": (["eval", "x", "--episodes", "abc"], "--episodes: expected a whole number, got 'abc'"),
    "too few numbers": (["sample", "x", "--avoid", "0.5", "0.2"], "--avoid: expected 3 numbers, got '0.5 0.2': see"),
    "a word for a number": (
        ["toy", "moons", "--out", "x", "--steps=five"],
        "--steps: expected a whole number, got 'five'",
    ),
    "words for numbers": (["sample", "x", "--guidance", "a"], "--guidance: expected numbers, got 'a': see n2a sample"),
    "a flag without its value": (["toy", "moons", "--out", "--steps", "3"], "--out: expected a path, got none"),
    "a choice that is none": (["likelihood", "x", "--trace", "exat"], "--trace: expected one of its names, got 'exat'"),
    "the nearest choice": (["image", "digit", "--out", "x"], "did you mean 'digits'?"),
    "no --out": (["toy", "moons"], "expected --out, got none: n2a toy NAME|FILE --out DIR"),
    "no folder to sample": (["sample"], "expected another word, got none: n2a sample DIR"),
    "one word too many": (["study", "steps", "eta"], "expected no further word, got 'eta'"),
    "an unknown option before a word": (["toy", "--stepz", "5", "moons", "--out", "x"], "did you mean '--steps'?"),
    "a positional as an option": (["toy", "--data", "moons", "--out", "x"], "data: expected it without a flag"),
    "an empty folder name": (["toy", "moons", "--out", ""], "--out: expected a path, got an empty one"),
    "an empty value": (["train", "two_routes", "--out="], "--out: expected a path, got an empty one"),
    "an unknown member of a recipe": (
        ["train", "two_routes", "--out", "x", "--policy.objective.path", "cosin"],
        "error: --policy.objective.path: expected a known kind",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, expected = BAD[case]
    assert run(*words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert expected in error[-1]
    assert error[-1].startswith("n2a: error: ")
    assert "Traceback" not in "".join(error)
    assert not complete(tmp_path / "x")


def test_what_cannot_be_written_is_told_before_the_work(trained, tmp_path, monkeypatch, capsys):
    def work(*_, **__):
        pytest.fail("worked first")

    for name in (
        "explain._moments",
        "evaluate.evaluate",
        "data.demonstrate",
    ):
        monkeypatch.setattr(f"noise2action.commands.{name}", work)
    (tmp_path / "x.txt").write_text("")
    inside = tmp_path / "x.txt" / "sub"
    for words in (
        ("study", "forward", "--out", inside),
        ("data", "generate", "two_routes", "--out", inside / "d.npz"),
        ("train", "two_routes", "--out", inside),
        ("demo", "--out", inside),
        ("eval", trained, "--out", inside / "r.json"),
        ("explain", trained, "--out", inside),
        ("report", trained, "--out", inside / "r.html"),
        ("likelihood", trained, "--out", inside / "r.json"),
        ("export", "lerobot", trained, inside),
    ):
        assert run(*words) == 2
        shown = capsys.readouterr().err
        assert "expected a path through folders, got the file" in shown
        assert len(shown.splitlines()) == 1
    before = set(tmp_path.iterdir())
    check_place(tmp_path / "new" / "r.json", flag="--out")
    check_place(tmp_path / "x.txt", flag="--out")
    assert set(tmp_path.iterdir()) == before


def test_a_disk_that_refuses_is_told_why(tmp_path):
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "gone").symlink_to("/proc/n2a/x")
    told = {"x.txt/a/b": "is a file", "n" * 300: "a shorter name"}
    if Path("/proc/self").exists():
        told["gone"] = "where folders can be made"
    for path, remedy in ((tmp_path / name, remedy) for name, remedy in told.items()):
        with pytest.raises(StorageError, match=remedy):
            atomic_write(path, b"")


def test_a_warning_is_printed_once(capsys):
    assert run("--version") == 0
    for place in ("a.py", "b.py"):
        warnings.showwarning("no signal\n is left", UserWarning, place, 1)
    assert capsys.readouterr().err == "n2a: warning: no signal is left\n"


@pytest.mark.parametrize("sampler", [pytest.param("adaptive", marks=pytest.mark.slow), "ddim"])
def test_network_evaluations_of_an_evaluation_are_counted(trained, tmp_path, sampler, capsys):
    words = ("--episodes", 1, "--record", 0, "--out", tmp_path / "r.json", "--sampler", sampler)
    assert run("eval", trained, *words, *(("--rtol", 0.1) if sampler == "adaptive" else ("--nfe", 3))) == 0
    found, noted = json.loads((tmp_path / "r.json").read_text()), "is the mean of the plans" in capsys.readouterr().err
    if sampler == "ddim":
        assert (found["nfe"], noted) == (3, False)
        return
    policy = open_policy(trained, sampling=replace(open_policy(trained)[0].config.sampling, sampler=resolve(sampler)))[
        0
    ]
    observation = TASKS["two_routes"].make().reset(seed=found["seeds"][0])[0]
    assert measured(policy, observation, calls=5)[1] > found["nfe"] > 5  # a tighter tolerance takes more
    assert noted


def data_set(path, **changes):
    arrays = {
        "position": np.zeros((20, 2), np.float32),
        "velocity": np.ones((20, 2), np.float32),
        "action": np.linspace(0, 1, 40, dtype=np.float32).reshape(20, 2),
        "episode_ends": np.array([10, 20]),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


BAD_DATA = {
    "features of another task": ({"velocity": None}, "use a recipe that matches"),
    "another shape": ({"position": np.zeros((20, 3), np.float32)}, "expected 'position' of shape (2,)"),
    "NaN": ({"velocity": np.full((20, 2), np.nan, np.float32)}, "episode 0"),
    "ends that do not add up": ({"episode_ends": np.array([10, 25])}, "25"),
    "ends that go back": ({"episode_ends": np.array([10, 5])}, "increase"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_demonstrations_give_one_clear_line_and_no_run(case, tmp_path, capsys):
    changes, expected = BAD_DATA[case]
    data = data_set(tmp_path / "d.npz", **changes)
    assert run("train", "two_routes", "--data", data, "--out", tmp_path / "run", *TINY[2:]) == 2
    assert expected in capsys.readouterr().err
    assert not complete(tmp_path / "run")


def test_a_truncated_data_set_is_told(tmp_path, capsys):
    data = data_set(tmp_path / "d.npz")
    data.write_bytes(data.read_bytes()[:-200])
    assert run("info", data) == 2
    assert str(data) in capsys.readouterr().err


def test_a_damaged_evaluation_is_told(trained, tmp_path, capsys):
    (trained / "evaluations").mkdir(exist_ok=True)
    bad = trained / "evaluations" / "bad.json"
    bad.write_text('{"version": 1}')
    assert run("report", trained, "--out", tmp_path / "r.html") == 2
    assert "bad.json" in capsys.readouterr().err
    bad.unlink()


def test_help_and_version_come_quickly_because_torch_is_not_loaded():
    code = "import sys; from noise2action.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_flags_that_contradict_are_told():
    with pytest.raises(ConfigError, match="have fields"):
        overrides.parse(["--train.steps", "3", "--train.steps.x", "4"])


@pytest.mark.parametrize(("verb", "names"), [(("train",), RECIPES), (("data", "generate"), TASKS)])
def test_the_help_names_every_recipe_and_every_task(verb, names, capsys):
    with pytest.raises(SystemExit):
        run(*verb, "--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_a_table_of_points_is_no_demonstration(trained, tmp_path, suffix, capsys):
    (tmp_path / f"a.{suffix}").write_bytes(b"1,2\n")
    assert run("likelihood", trained, "--data", tmp_path / f"a.{suffix}") == 2
    assert "--data: expected demonstrations of two_routes for a policy, got a table" in capsys.readouterr().err


def test_what_was_said_makes_file_names_that_differ_and_that_systems_hold():
    said = ["go left", "GO LEFT", "GO RIGHT", "geh nach links", "左へ", "右へ", "go left!", "word " * 80]
    names = [_file_name(f"ddim, told {text!r}") for text in said]
    assert len(set(names)) == len(said)
    assert max(map(len, names)) < 100
    assert names[0] == "ddim_told_go_left_"


def test_a_list_is_given_once(trained, capsys):
    assert run("eval", trained, "--hide", "camera", "--hide", "state") == 2
    assert "--hide: expected it once, with all its values behind it, got it again" in capsys.readouterr().err
