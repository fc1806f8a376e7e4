"""The study of shapes: every claim is recomputed from its table, and every shape that is asked for is the one met."""

import pytest
from control_claims import at, clauses, findings, rows, told, verdict

pytest.importorskip("metaworld", reason="needs the extra `sim`")

from noise2action.envs.grasp_novel import HELD_OUT, SHAPES, TRAINED, GraspNovel
from noise2action.errors import TaskError
from noise2action.evaluate.rollouts import EpisodeResult
from noise2action.studies import seen_vs_novel
from noise2action.studies.policies import SUCCESS, Arm


@pytest.mark.slow
def test_claims_follow_from_the_rows() -> None:
    table, text = rows("seen-vs-novel"), findings("seen-vs-novel").paragraph
    found = clauses(text, SUCCESS)
    for k, observed in enumerate(seen_vs_novel.OBSERVED):
        mine = {str(row["shapes"]): row for row in table if row["observed"] == observed}
        assert list(mine) == [seen_vs_novel.SEEN, "box", seen_vs_novel.NOVEL, "cross"]
        for name, row in mine.items():
            if name != seen_vs_novel.SEEN:
                gap = at(row, f"{SUCCESS}, less that of {seen_vs_novel.SEEN}")
                clause = found[2 * k + (name != seen_vs_novel.NOVEL)][verdict(gap)]
                assert f"{name} {told(gap, 1)}" in clause


def test_single_shapes_stand_beside_the_set_in_the_claims() -> None:
    keys = [name for those, single in seen_vs_novel.SETS.items() for name in (those, *single)]
    arms = {(observed, name): Arm() for observed in seen_vs_novel.OBSERVED for name in keys}
    for (_, name), arm in arms.items():
        shapes = seen_vs_novel.SETS.get(name, (name,))
        for _ in range(2):
            arm.add(
                [EpisodeResult(j, j or name != "star", 1.0, 9, None, 1.0, 0.1, 0.1) for _ in shapes for j in (0, 1)]
            )
    found = seen_vs_novel.findings(arms)
    assert len(found.rows) == len(arms)
    assert set(keys) == {row[1] for row in found.rows}
    assert "star (-50.0 [" in found.paragraph
    assert f"{seen_vs_novel.NOVEL} (" in found.paragraph


def test_a_shape_that_is_asked_for_lies_where_the_seed_says() -> None:
    env = GraspNovel()
    seen, _ = env.reset(seed=5)
    layout, drawn = env.layout, env.shape
    assert drawn in HELD_OUT
    for name in SHAPES:
        asked, _ = env.reset(seed=5, options={"shape": name})
        assert env.shape == name
        assert (env.layout == layout).all()
        assert (asked["shape"][:2] == seen["shape"][:2]).all()
    again, _ = env.reset(seed=5)
    assert all((again[key] == seen[key]).all() for key in seen)
    assert tuple(TRAINED) + tuple(HELD_OUT) == tuple(SHAPES)
    with pytest.raises(TaskError, match=r"expected a shape, got 'mushrooms': .*did you mean 'mushroom'"):
        env.reset(seed=5, options={"shape": "mushrooms"})
    with pytest.raises(TaskError, match="options of reset"):
        env.reset(seed=5, options={"size": 1.0})
