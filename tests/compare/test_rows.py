"""Who wins, who ties, and what the words say of it, on episodes written by hand."""

import io
from dataclasses import replace
from typing import get_args

import pytest
from rich.console import Console
from stand_in_comparison import row

from noise2action.compare import drawings
from noise2action.compare.methods import CONTROL, GENERATIVE, METHODS, TRAININGS
from noise2action.compare.rows import TaskRows, verdict
from noise2action.compare.stages import Demonstrated
from noise2action.compare.suites import SUITES, base, experiment
from noise2action.compare.tables import rich_tables, table_csv, table_markdown
from noise2action.compare.words import paragraph, verdict_text
from noise2action.envs.tasks import TASKS
from noise2action.errors import DataError
from noise2action.evaluate.statistics import paired_success, wilson
from noise2action.policies import AnyPolicyConfig, DiffusionConfig, LatentDiffusionConfig, NearestConfig
from noise2action.recipes import find


def found(*rows):
    return TaskRows("two_routes", tuple(rows), None)


def test_every_task_of_a_suite_exists_and_has_a_diffusion_policy():
    assert {name for suite in SUITES.values() for name in suite} <= set(TASKS)
    for name in SUITES["all"]:
        assert experiment(name).task == name
        assert experiment(name).train.minutes is None


def test_pictures_of_pusht_are_learnt_by_the_recipe_that_has_an_encoder_for_them():
    found, state = experiment("pusht@image:224"), experiment("pusht")
    assert found.task == "pusht@image:224"
    assert (found.policy, found.data) == (find("pusht_image").policy, find("pusht_image").data)
    assert found.policy.encoder != state.policy.encoder
    assert found.train.minutes is None
    assert experiment("maze@top:96").policy == experiment("maze").policy


def test_methods_share_network_encoder_and_windows_but_for_what_they_are_named_after():
    config = base("two_routes")
    made = {name: change(config) for name, change in TRAININGS.items()}
    for name, policy in made.items():
        if name != "bc-step":
            assert policy.spec == config.spec
        if not isinstance(policy, NearestConfig):
            assert (policy.net, policy.encoder) == (config.net, config.encoder)
    assert (made["bc-step"].spec.horizon, made["bc-step"].spec.stride) == (1, 1)
    assert {type(policy) for policy in made.values()} == set(get_args(AnyPolicyConfig)) - {LatentDiffusionConfig}
    assert {m.training for m in METHODS.values()} - {None} == set(TRAININGS)
    assert {CONTROL, *GENERATIVE} < set(METHODS)
    assert not any("," in method.label for method in METHODS.values())


def test_solvers_of_one_network_differ_in_sampling_alone():
    config = base("two_routes")
    ddim, dpm = (METHODS[name].sampling(config) for name in ("ddim", "dpm-solver++"))
    assert ddim.nfe == dpm.nfe
    assert ddim.grid == dpm.grid
    assert ddim.sampler != dpm.sampler
    assert isinstance(TRAININGS["flow"](config), DiffusionConfig)


def test_a_winner_is_told_apart_from_the_second():
    control = row("bc", "0" * 30 + "1" * 10)
    winner, third = row("flow", "1" * 40, control=control), row("nearest", "0" * 40, control=control)
    told = verdict([row("demonstrator", "1" * 40), third, control, winner])
    assert told.won
    assert (told.leader.method.name, told.second.method.name) == ("flow", "bc")
    assert told.lead.success == paired_success([True] * 40, [False] * 30 + [True] * 10)
    assert verdict_text(told) == "Ahead: flow matching"


def test_a_lead_within_the_interval_is_a_tie_with_all_that_are_not_told_apart():
    control = row("bc", "1" * 36 + "0" * 4)
    flow, ddim = row("flow", "1" * 38 + "0" * 2, control=control), row("ddim", "0" * 40, control=control)
    told = verdict([control, flow, ddim])
    assert not told.won
    assert told.lead.success.difference.low <= 0
    assert [r.method.name for r in told.tied] == ["bc"]
    assert verdict_text(told) == "Tie of flow matching and BC chunk (control)"


def test_a_third_that_is_not_told_apart_ties_though_the_second_does():
    # The second fails in episodes in which the leader succeeds alone; the third, a little below, also in others.
    leader = row("flow", "1" * 30 + "0" * 10)
    second = row("bc", "1" * 23 + "0" * 17)
    third = row("nearest", "0" * 11 + "1" * 22 + "0" * 7)
    told = verdict([second, third, leader])
    assert told.second.method.name == "bc"
    assert told.lead.success.difference.low > 0
    assert [r.method.name for r in told.tied] == ["nearest"]
    assert not told.won


def test_samplers_of_one_training_do_not_block_each_other_and_are_named_together():
    control = row("bc", "0" * 40)
    ddim, dpm = row("ddim", "1" * 40, control=control), row("dpm-solver++", "1" * 40, control=control)
    told = verdict([control, ddim, dpm])
    assert told.won
    assert (told.leader.method.name, told.second.method.name) == ("ddim", "bc")
    assert verdict_text(told) == "Ahead: diffusion (DDIM), level with diffusion (DPM-Solver++ 2M) of the same training"
    assert [line.rpartition(",")[2] for line in table_csv([found(control, ddim, dpm)]).splitlines()[1:]] == [
        "",
        "wins",
        "level",
    ]
    text = paragraph([found(control, ddim, dpm)])
    assert "diffusion (DPM-Solver++ 2M), of the same training, is not told apart from it." in text
    # Two less the control, of which one is the leader's, and the leader less the other.
    assert "95 % intervals of differences: 3, of which about 0.2 are expected to miss by chance." in text
    assert verdict([ddim, dpm]).second is None
    text = paragraph([found(ddim, dpm)])
    assert "is the best of one training, not told apart from diffusion (DPM-Solver++ 2M)." in text
    assert "is the only policy." in paragraph([found(ddim)])
    worse = row("dpm-solver++", "1" * 10 + "0" * 30, control=control)
    assert verdict_text(verdict([control, ddim, worse])) == "Ahead: diffusion (DDIM)"


@pytest.mark.parametrize(("episodes", "won"), [(3, False), (5, False), (6, True)])
def test_nobody_wins_with_so_few_episodes_that_chance_gives_as_much(episodes, won):
    control = row("bc", "0" * episodes)
    flow = row("flow", "1" * episodes, control=control)
    told = verdict([control, flow])
    assert told.lead.success.difference.low > 0
    assert (told.lead.success.p_value < 0.05) == won
    assert told.won == won
    said = "flow matching is above it" if won else "flow matching is not told apart from it"
    assert said in paragraph([found(control, flow)])


def test_neither_the_demonstrator_nor_chance_can_win():
    told = verdict([row("demonstrator", "1" * 20), row("random", "1" * 20), row("bc", "0" * 20)])
    assert told.leader.method.name == "bc"
    assert told.won
    assert verdict([row("random", "1" * 20)]) is None


def test_equal_success_is_ranked_by_score_and_stays_a_tie():
    one, two = row("bc", "01" * 10, score=0.5), row("flow", "10" * 10, score=0.9)
    told = verdict([one, two])
    assert told.leader.method.name == "flow"
    assert [r.method.name for r in told.tied] == ["bc"]


def test_what_ran_other_episodes_cannot_be_compared():
    control = row("bc", "01" * 10)
    with pytest.raises(DataError, match="the same task and seeds"):
        _ = row("flow", "10" * 10, control=control, first=7).paired


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ("1" * 40, "flow matching is above it in two_routes (+75.0 pp"),
        ("0" * 40, "flow matching is below it in two_routes (-25.0 pp"),
        ("0" * 29 + "1" * 11, "flow matching is not told apart from it in two_routes (+2.5 pp"),
    ],
)
def test_words_follow_the_interval(outcomes, said):
    control = row("bc", "0" * 30 + "1" * 10)
    text = paragraph([found(control, row("flow", outcomes, control=control))])
    assert said in text
    assert "Not every demonstrated route is taken by BC chunk (control) (50 % of the routes)" in text
    assert "95 % intervals of differences: 1, of which about 0.1 are expected to miss by chance." in text


@pytest.mark.parametrize(("width", "heads"), [(80, 3), (110, 4), (140, 6)])
def test_a_narrow_terminal_has_fewer_columns_and_whole_cells(width, heads):
    control = row("bc", "0" * 40)
    task = found(control, row("ddim", "1" * 40, control=control), row("dpm-solver++", "1" * 39 + "0", control=control))
    results, motion, routes, costs = rich_tables(task, width=width)
    text = _printed(results, width)
    assert len(results.columns) >= heads
    assert "diffusion (DPM-Solver++ 2M) 97.5 % [87.1, 99.6] +97.5 pp [+83.9, +99.6]" in " ".join(text.split())
    assert _on_a_line_each(text, task)
    costs = _printed(costs, width)
    assert _on_a_line_each(costs, task)
    # Heads are on one line where there is room.
    assert ("method                        calls a plan   one plan, p50 / p99 (ms)" in costs) == (width > 80)
    assert [column.header for column in motion.columns][:3] == ["method", "to success (s)", "jerk (m/s⁴)"]
    assert _on_a_line_each(_printed(motion, width), task)
    assert [column.header for column in routes.columns][:3] == ["method", "routes found", "entropy (bit)"]
    assert _on_a_line_each(_printed(routes, width), task)


def _on_a_line_each(text, task):
    """Return whether the last lines are the rows, each whole: none is cut, none continues on a second line."""
    last = text.splitlines()[-len(task.rows) :]
    begun = all(line.startswith(row.method.label) for line, row in zip(last, task.rows, strict=True))
    return begun and "…" not in text and "0.00 of \n" not in text


def _printed(table, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_the_figure_of_scores_has_the_tasks_in_which_a_score_says_more_than_success():
    plain, graded = found(row("bc", "0110")), TaskRows("pusht", (row("bc", "0110", score=0.7),), None)
    panels = [axes.get_title(loc="left") for axes in drawings.score([plain, graded]).axes]
    assert panels == ["pusht"]
    assert not drawings.score([plain]).axes
    assert len(drawings.time_to_success([plain, graded]).axes) == 2
    assert not drawings.time_to_success([found(row("bc", "0000"))]).axes
    # Nothing is drawn of what nobody learnt.
    assert not drawings.jumps([found(row("random", "0110"))]).axes


def test_a_route_has_one_colour_and_demonstrations_are_the_first_bar():
    far = TaskRows("maze", tuple(replace(r, task="maze") for r in (row("bc", "01", route="right-left"),)), None)
    near = found(row("bc", "01", route="left-left"), row("flow", "01", route="right-left"))
    one, other = drawings.routes([near, far]).axes
    colours = [{text.get_text(): patch.get_facecolor() for text, patch in _legend(axes)} for axes in (one, other)]
    assert colours[0]["right-left"] == colours[1]["right-left"]
    assert colours[0]["right-left"] != colours[0]["left-left"]
    assert one.get_yticklabels()[0].get_text() == "demonstrations"
    assert [bar.get_width() for bar in one.patches if bar.get_y() < -0.5 and bar.get_width()] == [50, 50]
    assert [text.get_text() for text in one.texts] == ["1.00 bit", "0.00 bit, 0 %", "0.00 bit, 0 %"]


def _legend(axes):
    legend = axes.get_legend()
    return zip(legend.get_texts(), legend.get_patches(), strict=True)


def test_words_tell_how_the_demonstrations_came_about():
    told = Demonstrated(200, 204, 9000, {"left": 0.45, "over": 0.15, "right": 0.4})
    text = paragraph([TaskRows("two_routes", (row("bc", "01"),), told)])
    assert "two_routes: Demonstrations: 200 of 204 attempts; left 45 %, over 15 %, right 40 %." in text


def test_tables_hold_the_numbers_of_the_episodes():
    control = row("bc", "0" * 30 + "1" * 10)
    task = found(row("demonstrator", "1" * 40), control, row("flow", "1" * 40, control=control))
    heads, *lines = (line.split(",") for line in table_csv([task]).replace('"', "").splitlines())
    assert "" not in heads
    rate = wilson(10, 40)
    text = table_markdown([task], protocol="How.")
    assert f"| BC chunk (control) | 25.0 % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] | - |" in text
    assert "Ahead: flow matching." in text
    assert "50 %" in text
    assert "p50 / p99" in text
    assert len(lines) == 3
