"""`n2a import`, `n2a export` and `n2a train --init`: a foreign policy in a task of ours, and back."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from noise2action import recipes
from noise2action.cli import main
from noise2action.diffusion.grids import LogSNR
from noise2action.diffusion.paths import TerminalSNRWarning
from noise2action.diffusion.samplers import NAMED, Adams
from noise2action.diffusion.sampling import CoarseGridWarning, place
from noise2action.envs.tasks import find
from noise2action.errors import PathError, SchemaError
from noise2action.evaluate.latency import measured
from noise2action.policies import DiffusionConfig, DiffusionPolicy, Sampling
from noise2action.policies.checkpoint import load, save
from noise2action.policies.foreign.features import parse, placed
from noise2action.policies.foreign.lerobot import read
from noise2action.recipes.experiment import Experiment
from noise2action.recipes.prepare import begun
from noise2action.recipes.runs import open_policy, write_config
from noise2action.schema import Feature, Schema

sys.path.insert(0, str(Path(__file__).parents[1] / "policies" / "foreign"))
from lerobot_written import Policy, options, seen, statistics
from stanford_written import of_states

pytestmark = pytest.mark.filterwarnings("ignore::noise2action.diffusion.paths.TerminalSNRWarning")


def state(name, size, kind="STATE"):
    return {name: {"type": kind, "shape": [size]}}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    features = state("observation.state", 2) | state("observation.environment_state", 2, "ENV")
    body = options(input_features=features, num_train_timesteps=1000, num_inference_steps=4)
    numbers = statistics(body)
    for found in numbers.values():  # two_routes is a room of a metre
        for key in ("mean", "std", "min", "max", "q01", "q99"):
            found[key] /= 300
    numbers["observation.state"]["max"][1] += 0.5
    return Policy(body, numbers).save(tmp_path_factory.mktemp("theirs") / "policy")


TOLD = ["--feature", "observation.state=position", "observation.environment_state=velocity"]


@pytest.fixture(scope="module")
def run(theirs, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert main(["import", "lerobot", str(theirs), str(out), "--task", "two_routes", *TOLD]) == 0
    return out


def test_an_imported_policy_is_described_and_evaluated(run, capsys, monkeypatch) -> None:
    monkeypatch.setattr("noise2action.commands.evaluate.measured", partial(measured, calls=2))
    assert main(["info", str(run)]) == 0
    assert "time_offset=-1.0" in capsys.readouterr().out.replace("\n", "").replace(" ", "")
    few = ["--episodes", "1", "--workers", "1", "--record", "0"]
    assert main(["eval", str(run), *few, "--sampler", "dpm-solver++-2m"]) == 0
    (file,) = (run / "evaluations").glob("*.json")
    assert "dpm-solver++-2m on leading" in file.read_text()


@pytest.fixture(scope="module")
def own(run):
    return open_policy(run)[0]


@pytest.mark.parametrize("name", NAMED)
def test_it_samples_with_every_solver(name, own) -> None:
    nfe = next(n for n in (20, 21, 22) if _fits(NAMED[name], n))
    sampling = replace(own.config.sampling, sampler=NAMED[name], nfe=nfe, grid=LogSNR())
    g = torch.Generator().manual_seed(0)
    history = {f.name: torch.rand(3, 2, *f.shape, generator=g) for f in own.schema.observations}
    chunk = own.resampled(sampling).plan(history, generator=g)
    assert chunk.shape == (3, 8, 2)
    assert chunk.std() > 0


def _fits(sampler, nfe):
    try:
        return sampler.steps(nfe) > 0
    except PathError:
        return False


def test_without_a_task_it_keeps_the_foreign_names_and_says_that_it_has_none(theirs, tmp_path, capsys) -> None:
    assert main(["import", "lerobot", str(theirs), str(tmp_path / "run"), "--control-hz", "30"]) == 0
    policy, checkpoint = open_policy(tmp_path / "run")
    assert [f.name for f in policy.schema.observations] == ["observation.state", "observation.environment_state"]
    assert policy.spec.control_hz == 30
    assert checkpoint.state["origin"]["what"] == "LeRobot"
    assert main(["eval", str(tmp_path / "run")]) == 2
    assert "expected a policy with a task, got one imported without: import it again" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "run"), "--data", str(tmp_path / "none.npz")]) == 2
    said = capsys.readouterr().err
    assert "import it again with --task" in said
    assert "note:" not in said
    assert not (tmp_path / "run" / "explain").exists()


def test_export_and_import_through_the_shell_is_the_identity(run, tmp_path) -> None:
    assert main(["export", "lerobot", str(run), str(tmp_path / "out")]) == 0
    assert main(["import", "lerobot", str(tmp_path / "out"), str(tmp_path / "run"), "--task", "two_routes", *TOLD]) == 0
    first, second = load(run), load(tmp_path / "run")
    assert first.deployed == second.deployed
    assert all(x.equal(second.tensors["ema"][key]) for key, x in first.tensors["ema"].items())
    assert all(x.equal(second.tensors["normalizer"][key]) for key, x in first.tensors["normalizer"].items())


def test_the_one_grid_of_lerobot_is_nothing_to_warn_of(run, tmp_path, recwarn) -> None:
    place.cache_clear()
    assert main(["export", "lerobot", str(run), str(tmp_path / "out"), "--sampler", "ddim", "--nfe", "8"]) == 0
    assert main(["import", "lerobot", str(tmp_path / "out"), str(tmp_path / "run")]) == 0
    assert not [w for w in recwarn if issubclass(w.category, CoarseGridWarning | TerminalSNRWarning)]


def test_a_failed_import_says_one_line_that_names_the_file(theirs, tmp_path, capsys) -> None:
    for file in theirs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "model.safetensors")
    assert main(["import", "lerobot", str(tmp_path), str(tmp_path / "out"), "--task", "two_routes", *TOLD]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.safetensors: expected exactly the weights of its configuration, got 1 missing" in said
    assert "save the policy again" in said


def test_an_own_run_is_exported_once_it_is_said_how_to_sample(run, tmp_path, capsys) -> None:
    checkpoint = load(run)
    policy = checkpoint.deployed.policy
    other = replace(policy, sampling=replace(policy.sampling, sampler=Adams()))
    save(tmp_path / "own", replace(checkpoint, deployed=replace(checkpoint.deployed, policy=other)))
    write_config(tmp_path / "own", Experiment(task="two_routes", policy=other))
    assert main(["export", "lerobot", str(tmp_path / "own"), str(tmp_path / "out")]) == 2
    assert "policy.sampling: expected diffusers' DDPM or DDIM" in capsys.readouterr().err
    told = ["--sampler", "ddim", "--nfe", "2"]
    assert main(["export", "lerobot", str(tmp_path / "own"), str(tmp_path / "out"), *told]) == 0
    body = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (body["noise_scheduler_type"], body["num_inference_steps"]) == ("DDIM", 2)


def test_a_pickled_checkpoint_becomes_a_run(tmp_path) -> None:
    file = of_states().save(tmp_path / "a.ckpt")
    assert main(["import", "stanford", str(file), str(tmp_path / "run")]) == 0
    policy, checkpoint = open_policy(tmp_path / "run")
    assert isinstance(policy, DiffusionPolicy)
    assert checkpoint.state["origin"] == {"what": "Stanford", "file": "a.ckpt", "weights": "ema_model"}


TRAIN = ["--data.demonstrations", "4", "--train.steps", "1", "--train.batch-size", "8", "--train.precision", "fp32"]


def trained(run, out, *more):
    return main(["train", "two_routes", "--init", str(run), "--out", str(out), *TRAIN, *more])


def test_training_starts_from_the_weights_and_the_normaliser(run, tmp_path) -> None:
    """With a learning rate of almost nothing one step leaves them as they were; with a usual one it does not."""
    assert trained(run, tmp_path / "still", "--train.learning-rate", "1e-12") == 0
    assert trained(run, tmp_path / "still", "--train.learning-rate", "1e-12", "--resume") == 0
    first, second = load(run), load(tmp_path / "still")
    assert second.step == 1
    assert second.deployed == first.deployed
    assert all(x.equal(second.tensors["normalizer"][key]) for key, x in first.tensors["normalizer"].items())
    for part in ("model", "ema"):
        for key, value in first.tensors["ema"].items():
            torch.testing.assert_close(second.tensors[part][key], value, rtol=0, atol=1e-9)
    assert float(second.tensors["optim"]["matrices.step"]) == 1
    assert trained(run, tmp_path / "moved", "--train.warmup-steps", "0", "--policy.sampling.nfe", "2") == 0
    moved = load(tmp_path / "moved")
    assert moved.deployed.policy.sampling.nfe == 2
    assert any(not x.equal(moved.tensors["model"][key]) for key, x in first.tensors["ema"].items())


def test_what_begins_from_a_run_states_the_normaliser_that_it_brings(run) -> None:
    start, recipe = load(run), recipes.find("two_routes")
    unbounded = DiffusionConfig(sampling=Sampling(clip=None))
    data = replace(recipe.data, observations="quantile", actions="gaussian")
    for experiment in (recipe, replace(recipe, policy=unbounded, data=data)):
        made = begun(experiment, start)
        assert made.policy == start.deployed.policy
        assert (made.data.observations, made.data.actions) == ("limits", "limits")


def test_another_policy_or_other_features_are_named(run, theirs, tmp_path, capsys) -> None:
    assert trained(run, tmp_path / "a", "--policy.net.kernel", "3") == 2
    assert "--init: policy.net.kernel: expected 5, got 3: policy and normaliser are those of" in capsys.readouterr().err
    assert trained(run, tmp_path / "a", "--policy.objective.target", "clean") == 2
    assert "--init: policy.objective.target: expected epsilon, got clean" in capsys.readouterr().err
    assert trained(run, tmp_path / "a", "--policy", "regression") == 2
    assert "--init: policy: expected diffusion, got regression" in capsys.readouterr().err
    assert main(["import", "lerobot", str(theirs), str(tmp_path / "named")]) == 0
    assert trained(tmp_path / "named", tmp_path / "a") == 2
    assert "--init: expected a run on features of two_routes, got 'observation.state'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert trained(tmp_path / "nothing", tmp_path / "a") == 2
    assert "expected a run folder with checkpoints" in capsys.readouterr().err


def test_what_the_shell_is_told_wrongly_is_one_line(theirs, run, tmp_path, capsys) -> None:
    out, task = str(tmp_path / "out"), ["--task", "two_routes"]
    for arguments, message in (
        ([str(tmp_path / "nothing"), out], "expected a folder with LeRobot's files"),
        ([str(theirs), str(run)], "expected a new run folder"),
        ([str(theirs), out, *TOLD], "--feature: expected --task as well"),
        ([str(theirs), out, "--task", "none"], "expected a task, got 'none'"),
        ([str(theirs / "config.json"), out], "expected a folder with LeRobot's files, got a file"),
        ([str(theirs), str(theirs / "config.json")], "OUT: expected a folder, got a file"),
        ([str(theirs), out, "--control-hz", "-3"], "--control-hz: expected a number in (0, 10000], got -3"),
        ([str(theirs), out, *task, "--control-hz", "3"], "--control-hz: expected that of two_routes"),
        ([str(theirs), out, *task, "--feature", "observation.state"], "expected NAME=FEATURE"),
        ([str(theirs), out, *task, "--feature", "state=position"], "expected a name of the checkpoint"),
        ([str(theirs), out, *task, "--feature", "observation.state=x"], "expected a feature of the task"),
        ([str(theirs), out, *task], "expected one feature of the task that 'observation.state' (2,) is"),
    ):
        assert main(["import", "lerobot", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert main(["import", "stanford", str(theirs), out]) == 2
    assert "expected a checkpoint file (.ckpt), got a folder" in capsys.readouterr().err
    assert main(["export", "lerobot", str(theirs / "config.json"), out]) == 2
    assert "expected a run folder, got a file" in capsys.readouterr().err
    assert main(["export", "lerobot", str(run), str(theirs)]) == 2
    assert "OUT: expected a new folder, got one that exists" in capsys.readouterr().err
    assert main(["import"]) == 2
    assert main(["export", "nothing"]) == 2
    assert not (tmp_path / "out").exists()


FEATURES = Schema(
    (
        Feature("front", (48, 40, 3), kind="image"),
        Feature("wrist", (48, 40, 3), kind="image"),
        Feature("top", (3, 96, 96), kind="image"),
        Feature("agent", (2,)),
        Feature("angle", (1,), kind="angle"),
        Feature("goal", (2,), goal=True),
    ),
    Feature("action", (2,)),
)


def test_features_are_placed_where_only_one_fits(tmp_path) -> None:
    body = options(input_features=seen(cameras=2))
    foreign = read(Policy(body, statistics(body)).save(tmp_path))
    assert foreign.sources[0].shape == (3,)
    with pytest.raises(SchemaError, match=r"'observation.images.c0' \(3, 48, 40\) is, got none or several"):
        placed(foreign, FEATURES, {})
    one = placed(foreign, FEATURES, parse(["observation.images.c1=front"]))
    named = {name: [f.name for f in features] for name, features in one.items()}
    assert named == {
        "observation.state": ["agent", "angle"],
        "observation.images.c0": ["wrist"],
        "observation.images.c1": ["front"],
        "action": ["action"],
    }
    assert [f.kind for f in one["observation.state"]] == ["vector", "vector"]
    for wrong in ("observation.images.c1=top", "observation.state=agent", "observation.state=front"):
        with pytest.raises(SchemaError, match="can be, got"):
            placed(foreign, FEATURES, parse([wrong]))
    assert find("two_routes").schema.action.shape == (2,)
