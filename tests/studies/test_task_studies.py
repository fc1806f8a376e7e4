"""The studies over several tasks: every claim is recomputed from the table, and what they measure is what is said."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from control_claims import Row, at, clauses, clocked, findings, rows, told, verdict

from noise2action.data.normalize import Normalizer
from noise2action.envs.grasp import Grasp
from noise2action.envs.sawyer import PUSHED
from noise2action.envs.tasks import TASKS, Task, find
from noise2action.errors import MissingExtraError
from noise2action.evaluate.rollouts import EpisodeResult, Trace
from noise2action.evaluate.setting import AS_DRAWN, Setting
from noise2action.evaluate.statistics import Estimate, paired_success
from noise2action.policies import AnyPolicy
from noise2action.recipes.demonstrations import demonstrate
from noise2action.studies import bc_vs_diffusion, demonstrations, one_or_many_actions, robustness, steps_policy
from noise2action.studies.policies import (
    COVERED,
    DIGITS,
    ENTROPY,
    JERKS,
    JUMPS,
    KINDS,
    REGRESSION,
    SPLIT,
    SUCCESS,
    TASK,
    Arm,
    Budget,
    driven,
    learnt,
    measured,
    routed,
    smooth,
    taught,
)
from noise2action.studies.study import Settings

OVERALL = "success (%), Wilson over all episodes"


def less(row: Row, measure: str, than: str) -> Estimate:
    return at(row, f"{measure}, less that of {than}")


def level(row: Row) -> str:
    found = at(row, OVERALL)
    return f"{found.value:.1f} % [{found.low:.1f}, {found.high:.1f}]"


def test_claims_on_demonstrations_follow_from_the_rows() -> None:
    table, text = rows("demonstrations"), findings("demonstrations").paragraph
    assert [tuple(row.values())[:3] for row in table] == list(product([TASK], KINDS, (3, 5)))
    found = clauses(text, SUCCESS)
    for k, (few, many) in enumerate([table[:2], table[2:]]):
        assert f"{many['policy']} {level(many)}" in text
        gap = less(few, SUCCESS, "5 demonstrations")
        assert f"3 {told(gap, 1)}" in found[k][verdict(gap)]


LEVELS = {"diffusion": (10, 60, 61), "regression": (60, 61, 60)}
BETTER = "regression succeeds significantly more often with"
ENOUGH = "the fewest demonstrations from which on success is not significantly below that with 100 are"


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (LEVELS, f"{ENOUGH} 50 for diffusion and 25 for regression"),
        (
            {**LEVELS, "regression": (80, 60, 5)},
            f"{ENOUGH} 50 for diffusion and 25 for regression; {BETTER} 25 and 50",
        ),
    ],
)
def test_enough_demonstrations_are_those_beyond_the_last_that_are_surely_worse(
    levels: dict[str, tuple[int, ...]], sentence: str
) -> None:
    arms = {(TASK, kind, count): Arm() for kind in KINDS for count in (25, 50, 100)}
    for (_, kind, count), arm in arms.items():
        mean = levels[kind][(25, 50, 100).index(count)]
        for shift in (-2, 2, 0):
            level = mean + shift * (1 if count < 100 else -1)
            arm.add([episode(j, success=j < level) for j in range(100)])
    assert demonstrations.enough(arms, TASK) == sentence


def test_claims_on_averaging_follow_from_the_rows() -> None:
    table, text = rows("bc-vs-diffusion"), findings("bc-vs-diffusion").paragraph
    for name in dict.fromkeys(str(row["task"]) for row in table):
        one, other = (row for row in table if row["task"] == name)
        assert (one["policy"], other["policy"]) == tuple(KINDS)
        gap = less(one, SUCCESS, REGRESSION)
        word = {"lower for": "less often than", "higher for": "more often than"}.get(
            verdict(gap), "as far as is told as often as"
        )
        assert f"diffusion succeeds {word} regression in {name}." in text
        for measure in bc_vs_diffusion.MEASURES:
            gap = less(one, measure, REGRESSION)
            assert f"diffusion {told(gap, DIGITS.get(measure, 1))}" in clauses(text, measure)[0][verdict(gap)]
        paired = at(one, bc_vs_diffusion.PAIRED)
        assert f"differs by {paired.value:+.1f} [{paired.low:+.1f}, {paired.high:+.1f}]" in text
        assert at(one, OVERALL).value - at(other, OVERALL).value == pytest.approx(paired.value)


def episode(seed: int, *, success: bool, route: str = "left", planned: tuple[int, ...] = (0,)) -> EpisodeResult:
    actions = np.linspace(0, 1, 6)[:, None].repeat(2, 1).astype(np.float32) ** 3
    starts = np.isin(np.arange(6), planned)
    trace = Trace(actions, starts, {}, None)
    return EpisodeResult(seed, success, float(success), 6, route, 4.0, 0.5, 0.25, trace=trace)


@pytest.mark.parametrize("study", [bc_vs_diffusion, one_or_many_actions, steps_policy])
def test_a_missing_simulator_is_told_before_anything_is_trained(study, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("metaworld", "sim")

    monkeypatch.setitem(TASKS, "grasp_seen", replace(TASKS["grasp_seen"], make=missing))
    monkeypatch.setattr(study, "taught", lambda *_, **__: pytest.fail("something is demonstrated before"))
    with pytest.raises(MissingExtraError, match="sim"):
        study.run(Settings("quick"), lambda *_: None)


def test_paired_success_is_that_of_the_same_episodes() -> None:
    found = bc_vs_diffusion.Compared()
    a, b = [True, True, False, True], [True, False, False, False]
    for kind, outcomes in zip(KINDS, (a, b), strict=True):
        found.arms[kind].add([episode(k, success=outcome) for k, outcome in enumerate(outcomes)])
    expected = paired_success(a, b).difference
    assert found.paired == Estimate(50.0, 100 * expected.low, 100 * expected.high, 4)


def compared(diffusion: int, regression: int) -> bc_vs_diffusion.Compared:
    """Return three trainings of either, which succeed in so many of 20 episodes each."""
    found = bc_vs_diffusion.Compared(shown=[1.0, 1.0, 1.0])
    for kind, successes in zip(KINDS, (diffusion, regression), strict=True):
        for _ in range(3):
            run = [episode(k, success=k < successes, route="left" if k % 2 else "right") for k in range(20)]
            found.arms[kind].add(run, further=routed(run, {"left": 0.5, "right": 0.5}))
    return found


def test_the_headline_says_where_averaging_decides_as_the_intervals_do() -> None:
    several = {"two_routes": compared(16, 6), "maze": compared(9, 8), "obstacles": compared(18, 3)}
    assert bc_vs_diffusion.decided(several) == (
        "more often than regression in two_routes and obstacles, as far as is told as often as regression in maze"
    )
    text = bc_vs_diffusion.paragraph({**several, "push_block_post": compared(6, 16)})
    assert text.startswith(
        "Where the average of the demonstrated ways leads nowhere, diffusion succeeds more often than regression in "
        "two_routes and obstacles, as far as is told as often as regression in maze, less often than regression in "
        "push_block_post."
    )
    assert bc_vs_diffusion.PLAIN not in text


@pytest.mark.parametrize(
    ("diffusion", "regression", "word"),
    [(16, 6, "more often than"), (6, 16, "less often than"), (16, 15, "as far as is told as often as")],
)
def test_the_task_without_several_ways_has_a_sentence_of_its_own(diffusion: int, regression: int, word: str) -> None:
    plain = bc_vs_diffusion.PLAIN
    one, two, *rest = bc_vs_diffusion.paragraph(
        {"maze": compared(18, 3), plain: compared(diffusion, regression)}
    ).split("\n\n")
    # Whatever the plain task shows, it is no part of the first sentence.
    assert one.endswith("diffusion succeeds more often than regression in maze.")
    assert two == (
        f"In {plain}, where the average of the approaches is itself an approach, it succeeds {word} regression."
    )
    shares = [f"{kind} in {5 * count:.1f} %" for kind, count in zip(KINDS, (diffusion, regression), strict=True)]
    (lead,) = (part for part in rest if part.startswith(f"In {plain} (demonstrated routes: 1.00 bits)"))
    assert all(share in lead for share in shares)


def test_claims_on_robustness_follow_from_the_rows() -> None:
    table, text = rows("robustness"), findings("robustness").paragraph
    found = clauses(text, SUCCESS)
    for k, (kind, name) in enumerate(product(KINDS, robustness.NOISES)):
        trouble = robustness.TROUBLES[name]
        mine = [row for row in table if (row["policy"], row["disturbed by"]) == (kind, name)]
        assert [row["strength"] for row in mine] == list(trouble.strengths)
        for row in mine[1:]:
            gap = less(row, SUCCESS, robustness.UNDISTURBED)
            assert f"{row['strength']:g} {trouble.unit} {told(gap, 1)}" in found[k][verdict(gap)]
    # Undisturbed is the same for every trouble: the same episodes.
    plain = [row for row in table if row["strength"] == 0 and row["policy"] == REGRESSION]
    assert len({at(row, OVERALL).value for row in plain}) == 1


@pytest.fixture(scope="module")
def grasping() -> AnyPolicy:
    """A policy of hardly any training, enough for what it does to depend on what it sees."""
    pytest.importorskip("metaworld", reason="needs the extra `sim`")
    budget = Budget(demonstrations=3, steps=20, episodes=1, seeds=1)
    return learnt("grasp_seen", REGRESSION, taught(budget, 0, task="grasp_seen").episodes, budget=budget, seed=0)


@pytest.mark.parametrize("name", robustness.TROUBLES)
def test_every_trouble_reaches_the_episodes(name: str, grasping: AnyPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Until just after the push begins.
    monkeypatch.setattr(Grasp, "max_steps", PUSHED.start + 10)
    task, trouble = find("grasp_seen"), robustness.TROUBLES[name]

    def lived(task: Task, setting: Setting = AS_DRAWN) -> Trace:
        (result,) = driven(grasping, 1, task=task, setting=setting)
        assert result.trace is not None
        return result.trace

    plain = lived(task)
    assert trouble.none in trouble.strengths
    for strength in trouble.strengths:
        troubled, setting = robustness.disturbed(task, grasping, name, strength)
        assert setting.options == ({} if name in robustness.NOISES else {name: strength})
        assert troubled.schema == task.schema
        found = lived(troubled, setting)
        alike = [np.array_equal(found.observations[key], seen) for key, seen in plain.observations.items()]
        assert all(alike) == (strength == trouble.none), strength
        if name in (*robustness.NOISES, "push"):
            # The policy does otherwise, as it sees what came of it.
            assert np.array_equal(found.actions, plain.actions) == (strength == trouble.none), strength


def test_observation_noise_is_in_units_of_the_normaliser_and_spares_constants() -> None:
    task = find("two_routes")
    arrays = {"position": np.array([[0.0, 1.0], [0.5, 1.0]]), "velocity": np.array([[-1.0, 2.0], [2.0, 3.0]])}
    normalizer = Normalizer.fit(arrays, {"position": "limits", "velocity": "limits"})
    found = robustness.spread(task, normalizer, 0.1)
    assert found["position"] == pytest.approx([0.025, 0.0])
    assert found["velocity"] == pytest.approx([0.15, 0.05])


def test_claims_on_steps_follow_from_the_rows() -> None:
    table, text = rows("steps-policy"), findings("steps-policy").paragraph
    few, many = table
    assert (few["task"], few["denoising steps"], many["denoising steps"]) == (steps_policy.TASKS[0], 5, 10)
    assert f"In obstacles, with 10 steps, the policies succeed in {level(many)} of the episodes." in text
    for measure in steps_policy.MEASURES:
        gap = less(few, measure, "the most steps")
        assert f"5 steps {told(gap, DIGITS.get(measure, 1))}" in clauses(text, measure)[0][verdict(gap)]
    for row in table:
        time = f"{clocked(row, 'p50 (ms)')} / {clocked(row, 'p99 (ms)')} ms"
        assert f"{row['denoising steps']} steps {time}" in text


def test_claims_on_executed_actions_follow_from_the_rows() -> None:
    table, text = rows("one-or-many-actions"), findings("one-or-many-actions").paragraph
    assert [row["actions between plans"] for row in table] == [1, 2, 4, 8]
    for row in table[:-1]:
        for measure in one_or_many_actions.MEASURES:
            gap = less(row, measure, "8 actions")
            said = f"{row['actions between plans']} action{'s' if row['actions between plans'] != 1 else ''}"
            assert f"{said} {told(gap, DIGITS.get(measure, 1))}" in clauses(text, measure)[0][verdict(gap)]
    # Every action is planned anew at the task's 10 Hz.
    assert at(table[0], one_or_many_actions.PLANS).value == 10
    for row in table:
        plans = at(row, one_or_many_actions.PLANS).value
        assert f"{plans:.1f} ({clocked(row, one_or_many_actions.BUSY)} %)" in text


def test_plans_are_counted_over_all_actions() -> None:
    run = [episode(0, success=True, planned=(0, 2, 4)), episode(1, success=True, planned=(0,))]
    assert one_or_many_actions.planned(run) == pytest.approx(4 / 12)
    found = one_or_many_actions.Executed(plans=[20.0, 10.0], milliseconds=[5.0, 4.0])
    assert found.busy.value == pytest.approx(7.0)  # 10 % and 4 %


def test_routes_against_those_that_were_demonstrated() -> None:
    run = [episode(k, success=True, route=r) for k, r in enumerate(["left", "left", "right", "none"])]
    found = routed(run, {"left": 0.5, "right": 0.25, "over": 0.25})
    assert found[COVERED] == pytest.approx(200 / 3)
    assert found[ENTROPY] == pytest.approx(-2 / 3 * np.log2(2 / 3) - 1 / 3 * np.log2(1 / 3))
    assert found[SPLIT] == pytest.approx(0.25)


def test_a_policy_that_moves_as_was_demonstrated_is_as_smooth() -> None:
    shown = demonstrate(find(TASK), 3, seed=0)
    budget = Budget(demonstrations=3, steps=2, episodes=2, seeds=1)
    run = driven(learnt(TASK, REGRESSION, shown.episodes, budget=budget, seed=0), 2)
    found = smooth(run, shown.episodes, 10.0)
    parts = [shown.episodes.arrays["action"][slice(*shown.episodes.bounds(k))].astype(np.float64) for k in range(3)]
    jerk = np.mean([np.sqrt((np.diff(a, n=3, axis=0) ** 2).sum(1).mean()) * 10.0**3 for a in parts])
    step = np.mean([np.linalg.norm(np.diff(a, axis=0), axis=1).mean() for a in parts])
    done = measured(run)
    assert found[JERKS] * jerk == pytest.approx(done["jerk (m/s^4)"])
    assert found[JUMPS] * step == pytest.approx(done["jump between chunks (m/s)"])
