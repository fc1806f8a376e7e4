from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from noise2action.data.augment import ObservationNoise
from noise2action.data.episodes import Episodes
from noise2action.data.formats import FORMATS, read, write
from noise2action.data.split import split
from noise2action.envs.tasks import find as find_task
from noise2action.envs.two_routes_text import INSTRUCTION
from noise2action.errors import ConfigError, DataError, SchemaError
from noise2action.recipes import find
from noise2action.recipes.demonstrations import demonstrate
from noise2action.recipes.experiment import Column, DataConfig, EvaluateConfig, Experiment
from noise2action.recipes.prepare import job, load_episodes
from noise2action.recipes.pusht_state import COLUMNS

SMALL = replace(find("two_routes"), data=DataConfig(demonstrations=8, held_out=0.25))


def test_demonstrations_are_successes_and_reproducible():
    task = find_task("two_routes")
    one, two = (demonstrate(task, 5, seed=3) for _ in range(2))
    assert np.array_equal(one.episodes.arrays["action"], two.episodes.arrays["action"])
    other = demonstrate(task, 5, seed=4)
    assert not np.array_equal(one.episodes.arrays["action"], other.episodes.arrays["action"])
    assert sum(one.routes.values()) == pytest.approx(1.0)
    assert set(one.routes) <= {"left", "right"}


def test_the_normaliser_is_fitted_on_training_episodes_only():
    prepared, summary = job(SMALL)
    made = demonstrate(find_task("two_routes"), 8, seed=0).episodes
    training, held_out = split(made, held_out=0.25, seed=0)
    assert (summary.episodes, summary.held_out) == (8, len(held_out)) == (8, 2)
    action = torch.from_numpy(training.arrays["action"])
    encoded = prepared.normalizer.encode("action", action)
    torch.testing.assert_close(encoded.amax(0), torch.ones(2))
    torch.testing.assert_close(encoded.amin(0), -torch.ones(2))


def test_noise_is_on_training_windows_only():
    noisy, _ = job(replace(SMALL, data=replace(SMALL.data, noise=ObservationNoise(0.5))))
    plain, _ = job(SMALL)
    rows = torch.arange(4)
    assert noisy.held_out is not None
    assert plain.held_out is not None
    for name, x in plain.held_out.gather(rows).observations.items():
        assert torch.equal(noisy.held_out.gather(rows).observations[name], x)
    changed = [noisy.training.batch(0).observations[n] - x for n, x in plain.training.batch(0).observations.items()]
    assert all(0.4 < float(d.std()) < 0.6 for d in changed)


def test_episodes_keep_their_schema_and_must_fit_it():
    made = demonstrate(find_task("two_routes"), 3, seed=0).episodes
    training, held_out = split(made, held_out=0.4, seed=0)
    assert training.schema == held_out.schema == find_task("two_routes").schema
    with pytest.raises(SchemaError, match="expected a feature 'agent_position'"):
        replace(made, schema=find_task("pusht").schema)


def test_another_control_rate_than_the_task_is_refused():
    spec = replace(SMALL.policy.spec, control_hz=20.0)
    with pytest.raises(ConfigError, match="control_hz=10"):
        job(replace(SMALL, policy=replace(SMALL.policy, spec=spec)))


@pytest.mark.parametrize("make", [lambda: DataConfig(held_out=1.0), lambda: EvaluateConfig(episodes=0)])
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="expected"):
        make()
    with pytest.raises(ConfigError, match="seed"):
        Experiment("two_routes", seed=-1)


def test_the_human_data_become_the_tasks_features(real_data):
    path = real_data / "pusht_cchi_v7_zarr"
    episodes = load_episodes(find_task("pusht"), DataConfig(path=str(path), columns=COLUMNS))
    raw = read(path / "pusht_cchi_v7_lowdim.npz")
    assert len(episodes) == 206
    assert episodes.schema == find_task("pusht").schema == episodes.select([0]).schema
    assert np.array_equal(episodes.arrays["block_position"], raw.arrays["state"][:, 2:4])
    assert np.array_equal(episodes.arrays["action"], raw.arrays["action"])
    with pytest.raises(SchemaError, match="expected the features"):
        load_episodes(find_task("two_routes"), DataConfig(path=str(path)))


def test_the_pusht_recipe_moves_training_episodes_to_the_mark_and_doubles_them(real_data):
    recipe = find("pusht_state")
    path = str(real_data / "pusht_cchi_v7_zarr" / "pusht_cchi_v7_lowdim.npz")
    prepared, summary = job(replace(recipe, data=replace(recipe.data, path=path)))
    assert summary.held_out == 10
    training = prepared.training
    assert len(training.windows.ends) == 2 * 196
    ends = torch.from_numpy(training.windows.ends) - 1
    last = training.gather(ends)
    position = prepared.normalizer.decode("block_position", last.observations["block_position"][:, -1])
    # One more step of the last motion ends on the mark exactly: 256, 256, and its own mirror image.
    before = prepared.normalizer.decode("block_position", last.observations["block_position"][:, -2])
    torch.testing.assert_close(2 * position - before, torch.full_like(position, 256.0), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("task", "name", "spoilt", "message"),
    [
        (
            "two_routes_text",
            "instruction",
            lambda x: x + 5,
            r"expected values in \[0\]\.\.\[2\], got \[.\] in episode 0, frame 0",
        ),
        (
            "two_routes_text",
            "instruction",
            lambda x: x.astype(np.float32),
            "positions of sentences, integers, got float32",
        ),
        ("two_routes_goal", "goal", lambda x: x + 9, "'goal': expected values in .* in episode 0, frame 0"),
        # x and y each have a range of their own: 0.75 is a legal y, and no x.
        (
            "two_routes_goal",
            "goal",
            lambda x: np.full_like(x, 0.75),
            r"values in \[-0.5, 0.0\]..\[0.5, 1.0\], got \[0.75",
        ),
    ],
)
def test_what_is_told_in_a_data_set_is_checked_before_anything_is_trained(task, name, spoilt, message, tmp_path):
    task = find_task(task)
    made = demonstrate(task, 2, seed=0).episodes
    path = tmp_path / "told.npz"
    write(path, made)
    load_episodes(task, DataConfig(path=str(path)))
    write(path, Episodes({**made.arrays, name: spoilt(made.arrays[name])}, made.ends), overwrite=True)
    with pytest.raises(DataError, match=message):
        load_episodes(task, DataConfig(path=str(path)))


@pytest.mark.parametrize("suffix", [known.suffix for known in FORMATS])
def test_sentences_are_stored_and_compared(suffix, tmp_path):
    task, path = find_task("two_routes_text"), tmp_path / f"told{suffix}"
    made = demonstrate(task, 2, seed=0).episodes
    sentences = {"instruction": INSTRUCTION.sentences}
    write(path, made)
    assert read(path).sentences == read(path).select([0]).sentences == sentences
    assert read(path, ["position"]).sentences == {}
    again = tmp_path / f"again{suffix}"
    write(again, read(path))
    assert load_episodes(task, DataConfig(path=str(again))).sentences == sentences
    for other, difference in (
        (INSTRUCTION.sentences[::-1], "expected 'go left' at position 0, got 'either way'"),
        (INSTRUCTION.sentences[:2], "expected 'either way' at position 2, got no sentence"),
        ((*INSTRUCTION.sentences, "stop"), "expected no sentence at position 3, got 'stop'"),
    ):
        write(path, Episodes(made.arrays, made.ends, sentences={"instruction": other}), overwrite=True)
        with pytest.raises(DataError, match=f"told{suffix}: 'instruction': {difference}: .*generate the data again"):
            load_episodes(task, DataConfig(path=str(path)))
    # Who does not say what the positions mean is believed, as before.
    write(path, Episodes(made.arrays, made.ends), overwrite=True)
    assert load_episodes(task, DataConfig(path=str(path))).sentences == sentences


def test_sentences_go_with_the_array_that_they_are_read_from(tmp_path):
    task, path = find_task("two_routes_text"), str(tmp_path / "told.npz")
    made = demonstrate(task, 2, seed=0).episodes
    arrays = {"said" if name == "instruction" else name: x for name, x in made.arrays.items()}
    config = DataConfig(path=path, columns=(Column("instruction", "said", 0, 1),))
    write(Path(path), Episodes(arrays, made.ends, sentences={"said": INSTRUCTION.sentences[::-1]}))
    with pytest.raises(DataError, match="expected 'go left' at position 0"):
        load_episodes(task, config)


@pytest.mark.parametrize("body", ["[1]", "{", '{"instruction": "go left"}', '{"instruction": [1]}'])
def test_damaged_sentences_are_refused(body, tmp_path):
    path = tmp_path / "told.episodes"
    write(path, demonstrate(find_task("two_routes_text"), 2, seed=0).episodes)
    (path / "sentences.json").write_text(body)
    with pytest.raises(DataError, match=r"sentences.json: expected"):
        read(path)


@pytest.mark.parametrize("source", ["goal_image", "picture"])
@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            lambda x: np.moveaxis(x, -1, 1),
            r"channels last, \(48, 48, 3\), got \(3, 48, 48\): .*moveaxis\(images, 1, -1\)",
        ),
        (lambda x: np.concatenate([x, x[..., :1]], axis=-1), r"a fourth channel, \(48, 48, 4\): blend alpha"),
    ],
)
def test_pictures_of_another_layout_are_named_with_the_remedy(source, stored, message, tmp_path):
    task, path = find_task("two_routes_goal"), tmp_path / "goals.npz"
    made = demonstrate(task, 2, seed=0).episodes
    arrays = {**made.arrays, source: stored(made.arrays["goal_image"])}
    if source != "goal_image":
        del arrays["goal_image"]
    write(path, Episodes(arrays, made.ends))
    with pytest.raises(SchemaError, match=f"'{source}': expected images .*{message}"):
        load_episodes(task, DataConfig(path=str(path), columns=(Column("goal_image", source, 0, 3),)))


@pytest.mark.parametrize(
    ("stored", "task", "advice"),
    [
        ("grasp_seen@gripperPOV:96", "grasp_seen", "add --task grasp_seen@gripperPOV:96, use a recipe"),
        (
            "grasp_seen@table+gripperPOV:32",
            "grasp_seen@corner2:32",
            r"add --task grasp_seen@(table|gripperPOV)\+\w+:32",
        ),
        ("grasp_seen@gripperPOV:96", "two_routes", r"'hand'\]: use a recipe"),
    ],
)
def test_pictures_of_cameras_are_named_as_the_task_that_sees_them(stored, task, advice, tmp_path):
    path, schema = tmp_path / "seen.npz", find_task(stored).schema
    arrays = {name: np.zeros((4, *f.shape), f.dtype) for name, f in schema.features.items()}
    write(path, Episodes(arrays, np.array([2, 4])))
    with pytest.raises(SchemaError, match=f"expected the features .* {advice}"):
        load_episodes(find_task(task), DataConfig(path=str(path)))


def test_a_dead_camera_is_told_before_training(tmp_path):
    recipe, path = find("pusht_image"), tmp_path / "dark.npz"
    schema = find_task(recipe.task).schema
    arrays = {n: np.zeros((40, *f.shape), f.dtype) for n, f in schema.features.items()}
    write(path, Episodes(arrays, np.array([20, 40])))
    data = replace(recipe.data, path=str(path), columns=(), mirror=None, retarget=None)
    _, summary = job(replace(recipe, data=data))
    assert "image: every picture is of one value, without anything to see: a dead camera?" in summary.warnings
