"""`n2a explain` on policies with and without pictures, on rollouts and on demonstrations."""

import json

import pytest

from noise2action.cli import main

TINY = [
    "--data.demonstrations", "6", "--data.held-out", "0.4", "--train.steps", "5", "--train.batch-size", "16",
    "--policy.net.width", "16", "--policy.net.blocks", "1", "--policy.net.condition-width", "8",
    "--policy.sampling.nfe", "2",
]  # fmt: skip
SMALL = ["--policy.encoder.vision.widths", "[16]", "--policy.encoder.vision.blocks", "[1]",
         "--policy.encoder.vision.strides", "[1]", "--policy.encoder.vision.pool.keypoints", "3"]  # fmt: skip
FEW = ["--episodes", "2", "--moments", "4", "--frames", "2", "--probes", "4", "--patch", "24"]


def run(*words):
    return main([str(w) for w in words])


@pytest.fixture(scope="module")
def sees(tmp_path_factory):
    """Return a run of a policy with a goal picture, and the demonstrations that it was trained on."""
    folder = tmp_path_factory.mktemp("runs")
    data, out = folder / "goals.npz", folder / "sees"
    assert run("data", "generate", "two_routes_goal", "--out", data, "--episodes", 6) == 0
    assert run("train", "two_routes_goal", "--data", data, "--out", out, *TINY[2:], *SMALL) == 0
    return out, data


def test_what_a_policy_sees_is_drawn_and_written(sees, capsys):
    out, _ = sees
    assert run("explain", out, *FEW) == 0
    said = capsys.readouterr()
    assert "goal_image" in said.out
    assert all(f"{stage}: " in said.err for stage in ("influence", "keypoints", "gradients", "covering goal_image"))
    found = json.loads((out / "explain" / "explain.json").read_text())
    assert (found["source"], found["episodes"], found["action_unit"]) == ("rollouts", [0, 1], "m/s")
    names = [row["name"] for row in found["influence"]]
    assert {"position", "goal", "goal_image", "goal, absent", "goal_image, absent"} < set(names)
    assert names[-2:] == ["everything", "sampler's noise"]
    camera = found["cameras"]["goal_image"]
    assert (camera["patch"], camera["cover"], len(camera["keypoints"])) == (24, "mean", 3)
    for name in ("influence", "camera-goal_image", "camera-goal_image-keypoints"):
        assert (out / "explain" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_demonstrations_that_it_was_trained_on_are_left_out(sees, tmp_path, capsys):
    out, data = sees
    assert run("explain", out, "--data", data, "--out", tmp_path, *FEW) == 0
    assert "only its 2 held-out episodes" in capsys.readouterr().err
    frames = json.loads((tmp_path / "explain.json").read_text())["cameras"]["goal_image"]["frames"]
    assert (len(frames), frames[0]["tick"]) == (2, 0)
    assert len(frames[0]["keypoints"]) == 3


def test_a_policy_without_pictures_has_its_influences_measured(tmp_path, capsys):
    out = tmp_path / "state"
    assert run("train", "two_routes", "--policy", "regression", "--out", out, *TINY[:-2]) == 0
    capsys.readouterr()
    assert run("explain", out, "--out", tmp_path / "found", "--nfe", 3, *FEW) == 0
    said = capsys.readouterr()
    assert "observes no images" in said.err
    assert "sampler options do not apply" in said.err
    found = json.loads((tmp_path / "found" / "explain.json").read_text())
    assert found["cameras"] == {}
    assert {row["name"]: row["moved"] for row in found["influence"]}["sampler's noise"] == 0
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == ["explain.json", "influence.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "best"], "ema or model"),
        (["--frames", "0"], "--frames"),
        (["--moments", "1"], "--moments"),
        (["--smooth", "2"], "--smooth"),
        (["--patch", "49"], "at most the 48 pixels of 'goal_image'"),
        (["--cover", "black"], "cover"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--sampler", "adaptive"], "--sampler: expected"),
        (["--nfe", "0"], "--nfe"),
        (["--out", "/proc/n2a"], "--out: expected a place that you may write to, got /"),
        (["--hide", "goal_image"], "unknown option '--hide'; known: "),
    ],
)
def test_what_makes_no_sense_is_one_line(sees, words, message, capsys):
    out, _ = sees
    assert run("explain", out, *FEW[:-2], *words) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("n2a: error: ")
    assert message in said
    assert "did you mean" not in said


def test_a_file_is_told_to_be_no_run(tmp_path, capsys):
    (tmp_path / "README.md").write_text("")
    for verb in ("explain", "eval"):
        assert run(verb, tmp_path / "README.md") == 2
        assert f"expected a run folder, got a file: {tmp_path / 'README.md'}" in capsys.readouterr().err
