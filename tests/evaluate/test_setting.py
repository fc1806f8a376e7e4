"""Something said, something hidden: what reaches the environment, the policy and the tables."""

import html
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from noise2action.commands.evaluate import Eval, _sampling, main
from noise2action.commands.report import _drawings, _evaluations
from noise2action.data.actions import Delta, Relative
from noise2action.data.normalize import Normalizer
from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.text import HashedNGramsConfig
from noise2action.envs.tasks import find
from noise2action.envs.two_routes_text import INSTRUCTION, ROUTES
from noise2action.errors import ConfigError, DataError
from noise2action.evaluate.report import Report, render
from noise2action.evaluate.result import About, Evaluation, compare, sampler_name
from noise2action.evaluate.rollouts import rollout
from noise2action.evaluate.setting import AS_DRAWN, Setting, setting_for
from noise2action.evaluate.tables import comparison_table, told_table
from noise2action.nets import MLPConfig
from noise2action.policies import DiffusionConfig, Guided, PolicySpec
from noise2action.recipes import find as recipe
from noise2action.recipes.prepare import job
from noise2action.train.loop import fit

pytestmark = pytest.mark.unchecked

TASK = find("two_routes_text")
SPEC = PolicySpec(obs_steps=2, horizon=4, stride=4, control_hz=10.0)


def policy(task=TASK, **encoder):
    torch.manual_seed(0)
    config = DiffusionConfig(
        spec=SPEC,
        net=MLPConfig(width=16, blocks=1, condition_width=8, time_dim=8),
        encoder=EncoderConfig(text=HashedNGramsConfig(width=32), **encoder),
    )
    states = {f.name: np.array([-np.ones(f.size), np.ones(f.size)]) for f in task.schema.observations if f.is_state}
    arrays = {**states, "action": np.array([[-0.6, -0.6], [0.6, 0.6]])}
    return config.build(task.schema, Normalizer.fit(arrays, dict.fromkeys(arrays, "limits"))).eval()


@dataclass
class Listening:
    """A policy that goes one way whatever it hears, and remembers what it was given."""

    spec: PolicySpec = SPEC
    schema: object = TASK.schema
    heard: list = field(default_factory=list)

    def loss(self, batch, *, generator):
        raise NotImplementedError

    def plan(self, history, committed=None, *, generator=None, watch=None, on_step=None):
        self.heard.append({name: x.clone() for name, x in history.items()})
        position = history["position"][:, -1]
        way = torch.where(position[:, 1:] < 0.55, torch.tensor([-0.2, 0.25]), torch.tensor([0.3, 0.2]))
        return way[:, None].expand(-1, 4, -1)


def test_what_is_given_stands_for_what_is_seen_and_what_is_hidden_is_gone():
    seen = {"a": np.zeros(2), "b": np.ones(2), "c": np.ones(1)}
    setting = Setting(given={"b": np.full(3, 7.0), "d": np.zeros(1)}, hidden=("c",))
    assert {name: x.tolist() for name, x in setting.seen(seen).items()} == {"a": [0, 0], "b": [7, 7, 7]}
    assert AS_DRAWN.seen(seen) == seen


def test_known_sentences_are_said_by_position_and_others_by_embedding():
    made = policy()
    for position, sentence in enumerate(ROUTES):
        setting = setting_for(made, say=sentence)
        assert (setting.options, setting.given["instruction"].tolist()) == ({"instruction": sentence}, [position])
        assert setting_for(made, say=f" {sentence.upper()}!").given["instruction"].tolist() == [position]
    other = setting_for(made, say="turn left please")
    embedding = HashedNGramsConfig(width=32).embed(["turn left please"])[0]
    np.testing.assert_array_equal(other.given["instruction"], embedding)


@pytest.mark.parametrize("say", ["go right", "fly to the moon"])
def test_every_episode_is_told_what_is_said(say):
    listening, setting = Listening(), setting_for(policy(), say=say)
    results = rollout(TASK, listening, range(6), setting=setting)
    assert {result.instruction for result in results} == {say}
    # On its way left a known sentence decides about success, an unknown one does not.
    assert {result.route for result in results} <= {"left", "none"}
    assert not any(result.success for result in results) or say != "go right"
    for history in listening.heard:
        for row in history["instruction"].flatten(0, 1):
            np.testing.assert_array_equal(row, setting.given["instruction"])


def test_as_drawn_the_seed_says_and_hiding_takes_the_feature_away():
    plain, deaf = Listening(), Listening()
    results = rollout(TASK, plain, range(12))
    assert {result.instruction for result in results} == set(ROUTES)
    heard = plain.heard[0]["instruction"][: len(results), -1, 0].tolist()
    assert [INSTRUCTION.sentences.index(r.instruction) for r in results] == heard
    hidden = setting_for(policy(modality_dropout=0.1, droppable=("instruction",)), hide=("instruction",))
    again = rollout(TASK, deaf, range(12), setting=hidden)
    assert all(set(history) == {"position", "velocity"} for history in deaf.heard)
    assert [r.instruction for r in again] == [r.instruction for r in results]
    assert setting_for(policy(modality_dropout=0.1), hide=("state",)).hidden == ("position", "velocity")


def test_what_cannot_be_said_or_hidden_is_refused():
    with pytest.raises(ConfigError, match=r"in words to say 'go left', got one of \['position', 'velocity'\]"):
        setting_for(policy(find("two_routes")), say="go left")
    remedy = "known: none; train with --policy.encoder.modality-dropout 0.1 --policy.encoder.droppable instruction"
    with pytest.raises(ConfigError, match=f"--hide: .* miss, got 'instruction': {remedy}"):
        setting_for(policy(), hide=("instruction",))
    may_miss = policy(modality_dropout=0.1)
    with pytest.raises(ConfigError, match=r"did you mean 'instruction'.*droppable NAME"):
        setting_for(may_miss, hide=("instructions",))
    with pytest.raises(ConfigError, match=r"got 'state,instruction': .*; separate several by spaces"):
        setting_for(may_miss, hide=("state,instruction",))
    with pytest.raises(ConfigError, match="--say: expected a policy that hears 'go left', got its words hidden"):
        setting_for(may_miss, say="go left", hide=("instruction",))
    assert setting_for(may_miss, say="go left", hide=("state",)).options == {"instruction": "go left"}
    for empty in ("", "  "):
        with pytest.raises(ConfigError, match="--say: expected words, got"):
            setting_for(may_miss, say=empty)


@pytest.mark.parametrize("space", [Relative("position"), Delta("position")])
def test_what_actions_refer_to_cannot_be_hidden(space):
    made = policy(modality_dropout=0.1)
    made.spec = replace(made.spec, action_space=space)
    with pytest.raises(ConfigError, match=r"--hide: expected 'position' in sight, .*\(instruction, state\): leave it"):
        setting_for(made, hide=("instruction", "state"))
    assert setting_for(made, hide=("instruction",)).hidden == ("instruction",)


def evaluation(results):
    about = About(
        "two_routes_text", "diffusion", "ema", "ddim", 8, 10.0, 8, "m/s", hardware="a computer", created="now"
    )
    return Evaluation(about, results, reference={"left": 0.5, "right": 0.5})


def test_an_evaluation_is_taken_apart_by_what_was_told():
    results = rollout(TASK, Listening(), range(12))
    whole = evaluation(results)
    assert list(whole.told) == sorted(ROUTES)
    assert sum(len(part.results) for part in whole.told.values()) == 12
    for sentence, part in whole.told.items():
        mine = [r for r in results if r.instruction == sentence]
        assert part.success.value == sum(r.success for r in mine) / len(mine)
        assert part.modes is None
    again = Evaluation.from_json(whole.to_json())
    assert again.told["go left"].seeds == whole.told["go left"].seeds
    untold = evaluation(tuple(replace(r, instruction=None) for r in results))
    assert untold.told == {}
    assert "instruction" not in untold.to_json()
    with pytest.raises(DataError, match="instruction"):
        Evaluation.from_json(whole.to_json().replace('"instruction": "go left"', '"instruction": 3'))


def test_tables_and_report_show_each_instruction():
    whole = evaluation(rollout(TASK, Listening(), range(12)))
    shown = io.StringIO()
    Console(file=shown, width=120).print(told_table(whole))
    page = render(Report("told", [whole]))
    for sentence in ROUTES:
        assert sentence in shown.getvalue()
        assert sentence in page


def told(sentence, **setting):
    """Return the evaluation of episodes that are told `sentence`, as their seeds draw where None."""
    spoken = AS_DRAWN if sentence is None else setting_for(policy(), say=sentence)
    made = evaluation(rollout(TASK, Listening(), range(4), setting=spoken))
    return replace(made, about=replace(made.about, told=sentence, **setting))


def test_episodes_that_were_told_other_things_are_not_paired():
    drawn, left, deaf = told(None), told("go left"), told(None, hidden=("instruction",))
    with pytest.raises(DataError, match=r"told the same, .*\(ddim\).*\(ddim, told 'go left'\): .*same --say"):
        compare(drawn, left)
    page = html.unescape(render(Report("told", [drawn, left, deaf])))
    assert "Not compared: diffusion, ddim, told 'go left'. These episodes were told something else" in page
    # What is hidden leaves the episodes as they are: the pair says so.
    assert "diffusion, ddim against diffusion, ddim, without instruction" in page
    assert compare(drawn, deaf).success.difference.value == 0
    shown = io.StringIO()
    Console(file=shown, width=120).print(comparison_table([compare(drawn, deaf)]))
    assert "diffusion against diffusion, without instruction" in shown.getvalue()
    # The long names wrap, so that the numbers beside them stay in sight.
    assert "tbody th, td.text { white-space: normal" in page
    assert "ddim, told 'go left', 8 network evaluations" in html.unescape(render(Report("told", [left])))


def test_the_setting_is_read_back_and_need_not_be_there():
    for whole in (told("go left", hidden=("position", "velocity")), told(None)):
        assert Evaluation.from_json(whole.to_json()).about == whole.about
    assert not {"told", "hidden"} & set(json.loads(told(None).to_json()))
    with pytest.raises(DataError, match="hidden"):
        Evaluation.from_json(told(None, hidden=("velocity",)).to_json().replace('"velocity"', "3"))


def test_every_modality_that_may_be_missed_guides_with_a_weight_of_its_own():
    made, run = policy(modality_dropout=0.1), Path("run")
    sampling = _sampling(Eval(run, guide=("instruction=2", "state=-0.5")), made)
    assert sampling.guided == (Guided("instruction", 2.0), Guided("state", -0.5))
    assert sampler_name(sampling) == "ddim, instruction w=2, state w=-0.5"
    assert made.resampled(sampling).config.sampling.guidance == 0
    # Another choice stands in place of the policy's own.
    assert _sampling(Eval(run, guide=("state=1",)), made.resampled(sampling)).guided == (Guided("state", 1.0),)
    for words in (("state",), ("state=",), ("=1",), ("state=a",), ("state=-2",), ("state=nan",), ("state=inf",)):
        with pytest.raises(ConfigError, match=f"--guide: expected NAME=W .*, got '{words[0]}': separate several by"):
            _sampling(Eval(run, guide=words), made)
    for words in (("state=1", "state=2"), ("state=1,instruction=2",)):
        with pytest.raises(ConfigError, match=f"--guide: expected NAME=W .* each name once, got '{words[-1]}'"):
            _sampling(Eval(run, guide=words), made)
    # One weight for the whole observation is another training.
    whole = _sampling(Eval(run, guidance=3.0), made)
    with pytest.raises(
        ConfigError, match=r"got guidance=3 on one without: guide by what it may miss, .*--guide NAME=W"
    ):
        made.resampled(whole)
    with pytest.raises(ConfigError, match="on one without: train again with --policy"):
        policy().resampled(whole)


def test_the_command_says_and_hides_and_names_what_it_cannot(tmp_path, capsys):
    experiment = recipe("two_routes_text")
    small = replace(
        experiment,
        policy=replace(experiment.policy, net=MLPConfig(width=16, blocks=1, condition_width=8, time_dim=8)),
        data=replace(experiment.data, demonstrations=4, held_out=0.3),
        train=replace(experiment.train, steps=2),
    )
    run = tmp_path / "run"
    run.mkdir()
    prepared, summary = job(small)
    fit(prepared, run)
    from noise2action.recipes.runs import write_experiment  # noqa: PLC0415 - commands are slow to import

    write_experiment(run, small, summary)
    told = {"episodes": 2, "record": 0, "workers": 1}
    assert main(Eval(run, say="fly to the moon", **told)) == 0
    assert "fly to the moon" in capsys.readouterr().out
    assert main(Eval(run, hide=("instruction",), guidance=3.0, **told)) == 0
    assert main(Eval(run, guide=("instruction=2",), **told)) == 0
    read = [Evaluation.from_json(path.read_text()).about for path in (run / "evaluations").glob("*.json")]
    assert {(about.way, about.told, about.hidden) for about in read} == {
        ("ddim, instruction w=1, told 'fly to the moon'", "fly to the moon", ()),
        ("ddim, instruction w=3, without instruction", None, ("instruction",)),
        ("ddim, instruction w=2", None, ()),
    }
    with pytest.raises(ConfigError, match="did you mean 'instruction'"):
        main(Eval(run, guide=("instructio=2",), **told))
    with pytest.raises(ConfigError, match="miss to guide by, got 'state': known: instruction"):
        main(Eval(run, guide=("state=2",), **told))
    with pytest.raises(ConfigError, match=r"--guide: expected none with --guidance .*, got instruction=2: leave one"):
        main(Eval(run, guide=("instruction=2",), guidance=1.0, **told))
    with pytest.raises(ConfigError, match="did you mean 'instruction'"):
        main(Eval(run, hide=("instructio",), **told))
    for weight in (-5.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"--guidance: expected a weight w >= -1 \(-1 ignores the condition"):
            main(Eval(run, guidance=weight, **told))
    # The picture of rollouts has a panel for everything that was told or hidden, and says what.
    found = _evaluations(run)
    (rollouts, *_) = _drawings({run: found})
    titles = [place.get_title().replace("\n", " ") for place in rollouts.figure.axes]
    assert any(title.startswith('run, told "fly to the moon", nothing hidden') for title in titles)
    assert any("without instruction" in title for title in titles)
    with pytest.raises(ConfigError, match="got 'instruction', which --hide takes away: leave it out"):
        main(Eval(run, guide=("instruction=2",), hide=("instruction",), **told))
