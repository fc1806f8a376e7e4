"""Runs that are trained already stand in a comparison as if they had been trained there, or are refused."""

import json
from pathlib import Path

import pytest
from stand_in_comparison import shrink, tiny

from noise2action.compare import stages
from noise2action.compare.run import run
from noise2action.compare.settings import Place
from noise2action.errors import CheckpointError, ConfigError
from noise2action.recipes.runs import open_policy

METHODS = ("nearest", "bc", "ddim")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A comparison that trained its own."""
    out = tmp_path_factory.mktemp("take") / "earlier"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return out, run(tiny(methods=METHODS), out, workers=1, command="n2a compare")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def runs(out: Path, *names: str) -> tuple[str, ...]:
    return tuple(str(Place(out, "two_routes").run(name, 0)) for name in names)


def test_runs_of_an_earlier_comparison_give_its_table_without_a_training(earlier, tmp_path, monkeypatch):
    before, outcome = earlier

    def trains(*_, **__):
        raise AssertionError("trained anew")

    monkeypatch.setattr(stages, "fit", trains)
    taken = tiny(methods=METHODS, take=runs(before, "diffusion", "bc", "nearest"))
    again = run(taken, tmp_path / "taken", workers=1, command="n2a compare")
    assert outcome.findings == again.findings == ()
    assert (tmp_path / "taken" / "table.csv").read_bytes() == (before / "table.csv").read_bytes()
    assert "3 of the trainings were taken from earlier runs." in (tmp_path / "taken" / "table.md").read_text()
    # A copy: the earlier folder may go.
    copied = Place(tmp_path / "taken", "two_routes").run("bc", 0)
    assert not copied.is_symlink()
    assert open_policy(copied)[1].step == 12
    assert json.loads((copied / "trained.json").read_text()) == json.loads(
        (Path(runs(before, "bc")[0]) / "trained.json").read_text()
    )


def test_what_is_not_taken_is_trained(earlier, tmp_path, monkeypatch):
    before, _ = earlier
    trained, fit = [], stages.fit
    monkeypatch.setattr(stages, "fit", lambda job, place, **more: trained.append(place.name) or fit(job, place, **more))
    run(tiny(methods=METHODS, take=runs(before, "bc")), tmp_path, workers=1, command="n2a compare")
    assert sorted(trained) == ["diffusion-seed0", "nearest-seed0"]
    assert (tmp_path / "table.csv").read_bytes() == (before / "table.csv").read_bytes()


@pytest.mark.parametrize(
    ("changed", "names", "said"),
    [
        ({"train_steps": 13}, ["bc"], r"expected 13 steps, .* got 12 in .*: --train.steps 12 gives all as many"),
        ({"seed": 1}, ["bc"], r"expected a run of seed 1 .*, got .* of seed 0"),
        ({"tasks": ("maze",)}, ["bc"], r"expected a run of maze, got .* of two_routes"),
        ({}, ["bc", "bc"], r"expected one run a training, got .* both bc of two_routes, seed 0"),
        ({"methods": ("bc-step", "ddim")}, ["bc"], r"expected what bc-step has here, policy.spec.\w+ \d+, got \d+ in"),
        ({"methods": ("flow", "bc")}, ["diffusion"], r"expected what flow has here, policy.objective.path"),
    ],
)
def test_a_run_that_is_no_training_of_the_comparison_is_refused_at_once(earlier, tmp_path, changed, names, said):
    before, _ = earlier
    with pytest.raises(ConfigError, match=said):
        run(
            tiny(**{"methods": METHODS, "take": runs(before, *names), **changed}),
            tmp_path / "out",
            workers=1,
            command="",
        )
    assert not (tmp_path / "out").exists()


def test_a_run_on_other_demonstrations_is_a_finding(earlier, tmp_path):
    before, _ = earlier
    more = tiny(methods=METHODS, demonstrations=6, take=runs(before, "bc"))
    outcome = run(more, tmp_path, workers=1, command="")
    (finding,) = outcome.findings
    assert "expected a run on the 6 demonstrations of this comparison, got one on others" in finding
    assert [row.method.name for row in outcome.tasks[0].rows] == ["nearest", "ddim"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a run folder with config\.json"):
        run(tiny(methods=METHODS, take=(str(tmp_path),)), tmp_path / "out", workers=1, command="")
