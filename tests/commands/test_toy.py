import json
import re

import numpy as np
import pytest
import torch

from noise2action.cli import main
from noise2action.commands import encode as encoded
from noise2action.commands.drawing import Drawn
from noise2action.commands.interpolate import SOLVER
from noise2action.commands.sampling import resolve
from noise2action.commands.toy import TRIALS, _by_class
from noise2action.config import members
from noise2action.data.points import POINTS, PointSet, read_points
from noise2action.diffusion.grids import AnyGrid, LogSNR
from noise2action.diffusion.objective import AnyWeight
from noise2action.diffusion.ode import cleanest_time, encode
from noise2action.diffusion.paths import AnyPath
from noise2action.diffusion.samplers import DPMSolverPP
from noise2action.diffusion.targets import AnyTarget
from noise2action.diffusion.times import AnyTimeLaw
from noise2action.evaluate.distances import energy_distance
from noise2action.evaluate.quality import quality
from noise2action.generative import store
from noise2action.generative.obstacles import Disc
from noise2action.seeds import generator

TINY = ["--steps", "60", "--width", "16", "--blocks", "1", "--batch-size", "64", "--nfe", "6", "--samples", "60"]


def run(*words):
    return main([str(w) for w in words])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp("toys") / "labelled"
    assert run("toy", "conditional_mixture", "--out", out, *TINY) == 0
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model of a user's file without classes."""
    folder = tmp_path_factory.mktemp("toys")
    np.savetxt(folder / "mine.csv", np.random.default_rng(0).normal(size=(200, 3)), delimiter=",")
    assert run("toy", folder / "mine.csv", "--out", folder / "model", *TINY) == 0
    return folder / "model"


def test_a_toy_leaves_model_metrics_figures_and_animation(toy):
    figures = ("samples", "classes", "forward", "denoising", "density")
    assert {p.name for p in toy.iterdir()} == {
        "config.json", "model.safetensors", "metrics.json", "denoising.gif", "denoising.mp4",
        *(f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")),
    }  # fmt: skip
    assert (toy / "denoising.gif").read_bytes()[:6] == b"GIF89a"
    assert b"ftyp" in (toy / "denoising.mp4").read_bytes()[:12]


def test_the_metrics_are_of_the_seeds_that_they_name(toy):
    found = json.loads((toy / "metrics.json").read_text())
    seeds, points = found["seeds"]["data"], POINTS["conditional_mixture"]
    sets = [[points.draw(60, s).x for s in seeds[part]] for part in ("held_out", "data")]
    again = np.mean([energy_distance(data, held_out) for held_out, data in zip(*sets, strict=True)])
    assert found["energy_distance_data"] == pytest.approx(again)
    assert found["energy_distance"] > found["energy_distance_data"]
    assert (found["nfe"], found["samples"], found["trials"]) == (6, 60, TRIALS)
    assert len(found["energy_distance_by_class"]) == len(found["energy_distance_by_class_data"]) == 4
    names = ("sliced_wasserstein", "mmd", "mode_coverage", "off_mode_fraction", "precision", "recall")
    assert {f"{name}{suffix}" for name in names for suffix in ("", "_ci95", "_data")} <= found.keys()
    assert store.about(toy)["data"] == "conditional_mixture"
    parts = [found["seconds"].pop(part) for part in ("training", "sampling", "measuring", "figures")]
    assert min(parts) > 0
    assert sum(parts) <= found["seconds"].pop("total")
    assert not found["seconds"]


def test_the_likelihood_of_the_metrics_is_that_of_the_command(toy, tmp_path):
    found = json.loads((toy / "metrics.json").read_text())
    out = tmp_path / "likelihood.json"
    words = ("--samples", 60, "--solver", "fixed", "--steps", 50, "--out", out)
    assert run("likelihood", toy, *words) == 0
    again = json.loads(out.read_text())
    assert found["log_likelihood_points"] == again["samples"] == 60
    assert found["log_likelihood_nats"] == pytest.approx(again["nats"]["value"], rel=1e-4)
    assert found["bits_per_dimension"] == pytest.approx(-found["log_likelihood_nats"] / 2 / np.log(2))
    low, high = found["bits_per_dimension_ci95"]
    assert low < found["bits_per_dimension"] < high


def test_a_file_of_the_users_is_learnt_and_compared(plain, capsys):
    found = json.loads((plain / "metrics.json").read_text())
    assert (found["trials"], found["samples"]) == (1, 40)
    assert "mode_coverage" not in found
    assert run("sample", plain, "--n", 30) == 0
    assert "energy distance" in capsys.readouterr().out
    (plain.parent / "mine.csv").rename(plain.parent / "gone.csv")
    assert run("sample", plain, "--n", 30) == 0
    assert "no comparison" in capsys.readouterr().err
    (plain.parent / "gone.csv").rename(plain.parent / "mine.csv")


@pytest.mark.parametrize(
    "words",
    [
        ("--path", "straight", "--target", "velocity", "--times", "logit_normal", "--sampler", "euler"),
        ("--target", "epsilon", "--span", "0", "0.999", "--weight", "min_snr", "--sampler", "ddim", "--eta", "0.5"),
        ("--path", "ve", "--target", "edm", "--times", "log_normal", "--sampler", "heun", "--nfe", "7"),
    ],
    ids=lambda words: words[1],
)
def test_any_member_by_name(words, tmp_path, monkeypatch):
    monkeypatch.setattr("noise2action.commands.toy._draw", lambda *_, **__: None)
    assert run("toy", "moons", "--out", tmp_path, *TINY, *words) == 0
    assert run("sample", tmp_path, "--n", 5, "--sampler", "unipc", "--nfe", 5, "--grid", "karras") == 0


def test_samples_are_written_as_they_can_be_read(toy, tmp_path, capsys):
    for suffix in ("npz", "csv"):
        out = tmp_path / f"a.{suffix}"
        words = ("--n", 120, "--out", out, "--sampler", "dpm-solver++-3m", "--nfe", 5, "--guidance", 2)
        assert run("sample", toy, *words) == 0
        assert "5 network evaluations" in capsys.readouterr().out
        assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    one, other = (read_points(tmp_path / f"a.{suffix}") for suffix in ("npz", "csv"))
    np.testing.assert_allclose(one.x, other.x, rtol=1e-5)
    assert one.labels.tolist() == other.labels.tolist() == [k % 4 for k in range(120)]


def test_one_class_is_sampled_where_it_lies(toy, tmp_path):
    assert run("sample", toy, "--n", 100, "--label", 2, "--guidance", 1, "--out", tmp_path / "a.npz") == 0
    assert set(np.load(tmp_path / "a.npz")["labels"]) == {2}


def test_two_labels_are_composed(toy, tmp_path, capsys):
    words = ("--n", 50, "--label", 0, 3, "--guidance", 1.5, 0.5, "--nfe", 6, "--out", tmp_path / "a.npz")
    assert run("sample", toy, *words) == 0
    assert "6 network evaluations" in capsys.readouterr().out
    labels = torch.tensor([[0] * 50, [3] * 50])
    expected = store.load(toy).sample(
        50, sampler=DPMSolverPP(), grid=LogSNR(), nfe=6, labels=labels, w=(1.5, 0.5), generator=generator(0, "sampling")
    )
    with np.load(tmp_path / "a.npz") as found:
        assert found.files == ["x"]
        np.testing.assert_allclose(found["x"], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_disc_is_avoided(toy, tmp_path, capsys):
    """The disc is where the samples are: a tiny model is not where the data is."""
    assert run("sample", toy, "--n", 300, "--out", tmp_path / "a.npz") == 0
    x = torch.from_numpy(np.load(tmp_path / "a.npz")["x"])
    middle = x.mean(0).tolist()
    disc = Disc(*middle, 0.5)
    words = ("--n", 300, "--avoid", *middle, 0.5, "--out", tmp_path / "b.npz")
    assert run("sample", toy, *words) == 0
    kept_out = torch.from_numpy(np.load(tmp_path / "b.npz")["x"])
    assert int(disc.holds(kept_out).sum()) < int(disc.holds(x).sum()) / 2
    assert "in the disc" in capsys.readouterr().out


def test_columns_of_different_scales_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("noise2action.commands.toy._draw", lambda *_, **__: None)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(200, 2)) * [1, 30])
    assert run("toy", tmp_path / "a.npy", "--out", tmp_path / "uneven", *TINY) == 0
    assert "divide each column by its standard deviation" in capsys.readouterr().err
    assert run("toy", "moons", "--out", tmp_path / "even", *TINY) == 0
    assert "divide each column" not in capsys.readouterr().err


def test_commands_run_on_one_thread_and_give_the_others_back(plain, monkeypatch):
    seen = []
    monkeypatch.setattr("noise2action.commands.sample.say", lambda _: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run("sample", plain, "--n", 5) == 0
        assert torch.get_num_threads() == 2
        assert run("sample", plain, "--n", 0) == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_the_tolerance_of_adaptive_is_both():
    chosen = resolve("adaptive", rtol=1e-2, nfe=50)
    assert (chosen.rtol, chosen.atol, chosen.max_nfe) == (1e-2, 1e-2, 50)


@pytest.mark.parametrize("how", ["spherical", "linear"])
def test_interpolations_begin_and_end_at_held_out_points(toy, tmp_path, how):
    assert run("sample", toy, "--n", 3, "--interpolate", how, "--out", tmp_path / "a.npz") == 0
    found = np.load(tmp_path / "a.npz")
    ends = found["x"][np.isin(found["weight"], (0, 1))]
    seeds = json.loads((toy / "metrics.json").read_text())["seeds"]["data"]
    held_out = POINTS["conditional_mixture"].draw(2000, seeds["held_out"][0]).x.numpy()
    gaps = np.linalg.norm(ends[:, None] - held_out[None], axis=2).min(1)
    assert len(ends) == 6
    assert gaps.max() < 1e-2


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_a_users_points_go_to_noise_and_back(toy, tmp_path, suffix, capsys):
    """Fewer than a toy can be trained on, and each under its own class."""
    assert run("sample", toy, "--n", 6, "--nfe", 6, "--out", tmp_path / f"mine.{suffix}") == 0
    x, labels = encoded.read(tmp_path / f"mine.{suffix}")
    capsys.readouterr()
    assert run("sample", toy, "--encode", tmp_path / f"mine.{suffix}", "--out", tmp_path / "noise.npz") == 0
    error = float(re.search(r"largest error ([\d.e+-]+)", capsys.readouterr().out)[1])
    model = store.load(toy)
    path, cleanest = model.config.objective.path, cleanest_time(model.config.objective.path)
    noise = encode(model.denoiser(labels), path, model.normalised(x), solver=SOLVER, cleanest=cleanest)
    with np.load(tmp_path / "noise.npz") as found:
        np.testing.assert_allclose(found["x"], noise.numpy(), atol=1e-5)
        np.testing.assert_allclose(found["decoded"], x.numpy(), atol=2e-3)
        assert np.abs(found["decoded"] - x.numpy()).max() == pytest.approx(error, rel=0.1)
        assert found["labels"].tolist() == labels.tolist() == [0, 1, 2, 3, 0, 1]


def test_held_out_points_are_encoded_where_none_are_named(plain, toy, tmp_path, capsys):
    assert run("sample", plain, "--encode", "--out", tmp_path / "noise.csv") == 0
    assert "40 samples to noise and back" in capsys.readouterr().out
    assert (tmp_path / "noise.csv").read_text().splitlines()[0] == "x0,x1,x2,decoded0,decoded1,decoded2"
    assert run("sample", toy, "--encode", "--label", 3, "--n", 20, "--out", tmp_path / "noise.npz") == 0
    assert set(np.load(tmp_path / "noise.npz")["labels"]) == {3}


@pytest.mark.parametrize("words", [("--n", 2), ("--n", 8, "--label", 1)], ids=str)
def test_too_few_samples_are_not_compared(toy, words, capsys):
    assert run("sample", toy, *words) == 0
    shown = capsys.readouterr()
    assert "no comparison with the data: expected at least 10" in shown.err
    assert "energy distance" not in shown.out


@pytest.mark.parametrize("words", [("--label", 2), ("--avoid", 1.0, 1.0, 0.7)], ids=str)
def test_the_datas_own_generator_is_as_good_as_data(toy, words, monkeypatch):
    """Sets of one size: the biased distances of a perfect sampler are those of data and data."""
    points, seen = POINTS["conditional_mixture"].draw(40_000, 77), []
    kept = points.rows(points.labels == 2 if "--label" in words else ~Disc(*words[1:]).holds(points.x))

    def draw(model, drawing, n, *, labels, seed):
        return Drawn(kept.x[:n], 1, 1.0)

    monkeypatch.setattr("noise2action.commands.sample.draw", draw)
    monkeypatch.setattr("noise2action.commands.sample.show", seen.append)
    trials = []
    monkeypatch.setattr("noise2action.commands.sample.quality", lambda t, **kw: trials.append(t) or quality(t, **kw))
    assert run("sample", toy, "--n", 2000, *words) == 0
    ((trial,),), (found,) = trials, seen
    assert {len(x) for x in (trial.generated, trial.held_out, trial.data)} == {2000}
    assert found["energy_distance"] == pytest.approx(found["energy_distance_data"], rel=0.5)


def test_rescaling_guidance_over_few_coordinates_is_noted(toy, capsys):
    words = ("--n", 20, "--guidance", 1, "--guidance-rescale")
    assert run("sample", toy, *words, 0.5) == 0
    assert "says little for 2" in capsys.readouterr().err
    assert run("sample", toy, *words, 0) == 0
    assert "says little" not in capsys.readouterr().err


@pytest.mark.parametrize(("path", "grid"), [("table", "trailing"), ("schedule", "trailing"), ("straight", "log_snr")])
def test_the_default_grid_exists_on_the_path(path, grid, tmp_path, monkeypatch):
    monkeypatch.setattr("noise2action.commands.toy._draw", lambda *_, **__: None)
    assert run("toy", "moons", "--out", tmp_path, *TINY, "--path", path, "--nfe", 37) == 0
    assert store.about(tmp_path)["sampling"]["grid"] == grid
    assert run("sample", tmp_path, "--n", 20) == 0


@pytest.mark.parametrize("command", ["toy", "image"])
def test_the_help_names_every_member(command, capsys):
    with pytest.raises(SystemExit):
        run(command, "--help")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    unions = (AnyPath, AnyTarget, AnyTimeLaw, AnyWeight, AnyGrid)
    starts = ("Forward process:", "What the network predicts:", "Training times:", "Weight of the loss:", "trailing,")
    for union, start in zip(unions, starts, strict=True):
        sentence = told[told.index(start) :].split("(default")[0]
        assert set(members(union)) <= set(re.findall(r"\w+", sentence))


def test_a_class_with_too_few_points_has_no_distance():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    held_out, data = (PointSet(x, torch.tensor([0] * a + [1] * (60 - a))) for a in (55, 40))
    found = _by_class(x, held_out, data, classes=3)
    assert found["energy_distance_by_class"][1:] == found["energy_distance_by_class_data"][1:] == [None, None]
    assert found["energy_distance_by_class"][0] == pytest.approx(0.0, abs=1e-12)


def error_of(capsys, *words):
    assert run(*words) == 2
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert message.startswith("n2a: error: ")
    return message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("swissroll",), "did you mean 'swiss_roll'"),
        (("moons", "--path", "cosin"), "error: --path: expected a known kind, got 'cosin'"),
        (("moons", "--times", "unifrm"), "error: --times: expected a known kind, got 'unifrm'"),
        (("moons", "--target", "epsilon"), "use target=v"),
        (("moons", "--sampler", "ddimm"), "did you mean 'ddim'"),
        (("moons", "--sampler", "ddim", "--eta", "1.5"), "eta in [0, 1]"),
        (("moons", "--sampler", "heun", "--nfe", "8"), "7 or 9"),
        (("moons", "--grid", "karas"), "did you mean 'karras'"),
        (("moons", "--guidance", "1"), "without"),
        (("quadrants", "--guidance", "1", "--p-uncond", "0"), "p_uncond"),
        (("moons", "--p-uncond", "1.5"), "--p-uncond: expected a probability from 0 up to, but not, 1, got 1.5"),
        (("moons", "--steps", "0"), "--steps: expected a number >= 1, got 0"),
        (("moons", "--nfe", "0"), "--nfe: expected a number >= 1, got 0"),
        (("moons", "--batch-size", "0"), "--batch-size: expected a number >= 1, got 0"),
        (("moons", "--learning-rate", "nan"), "--learning-rate: expected a number above 0, got nan"),
        (("moons", "--seconds", "-1"), "--seconds: expected a number above 0, got -1"),
        (("moons", "--eta", "0.5"), "got dpm-solver++-2m: add --sampler ddim, or leave --eta out"),
        (("moons", "--samples", "3"), "--samples: expected a number >= 10, got 3"),
        (("moons", "--seed", "-1"), "--seed: expected a number >= 0, got -1"),
        (("moons", "--width", "0"), "--width: expected a number >= 1, got 0"),
        (("moons", "--blocks", "0"), "--blocks: expected a number >= 1, got 0"),
        (("nothing.csv",), "readable file"),
    ],
)
def test_mistakes_are_one_line(words, expected, tmp_path, capsys):
    assert expected in error_of(capsys, "toy", *words, "--out", tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--label", "4"), "from 0 to 3, got 4"),
        (("--label", "-1"), "from 0 to 3, got -1"),
        (("--encode", "--sampler", "nonsense"), "--sampler: expected none with --encode"),
        (("--encode", "--guidance", "2"), "--guidance: expected none with --encode"),
        (("--encode", "--nfe", "5"), "--nfe: expected none with --encode"),
        (("--interpolate", "linear", "--sampler", "ddpm"), "--sampler: expected none with --interpolate"),
        (("--interpolate", "linear", "--avoid", "0", "0", "1"), "--avoid: expected none with --interpolate"),
        (("--interpolate", "linear", "--rtol", "0.1"), "--rtol: expected none with --interpolate"),
        (("--nfe", "0"), "--nfe: expected a number >= 1, got 0"),
        (("--sampler", "heun", "--nfe", "4"), "3 or 5"),
        (("--eta", "-1", "--sampler", "ddim"), "eta in [0, 1]"),
        (("--interpolate", "round"), "spherical or linear"),
        (("--out", "x.txt"), ".npz or .csv"),
        (("--n", "0"), "--n: expected a number >= 1, got 0"),
        (("--seed", "-1"), "--seed: expected a number >= 0, got -1"),
        (("--encode", "nothing.npz"), "readable file"),
        (("--encode", "nothing.txt"), ".npz, .npy or .csv"),
        (("--encode", "--interpolate", "linear"), "without --interpolate"),
        (("--guidance", "nan"), "finite"),
        (("--guidance", "1", "2"), "weight a label (1)"),
        (("--label", "0", "1", "--guidance", "1", "2", "3"), "weight a label (2)"),
        (("--label", "0", "1", "--interpolate", "linear"), "one label or none"),
        (("--avoid", "0", "0", "0"), "radius above 0"),
        (("--avoid", "0", "0", "1", "--avoid-scale", "nan"), "finite scale"),
        (("--rtol", "0.1", "--sampler", "ddim"), "--rtol: expected a sampler that has it (adaptive)"),
        (("--guidance-rescale", "2"), "--guidance-rescale: expected a number from 0 to 1, got 2"),
    ],
)
def test_mistakes_in_sampling_are_one_line(toy, words, expected, capsys):
    assert expected in error_of(capsys, "sample", toy, *words)


def test_a_model_is_not_replaced_by_accident(toy, tmp_path, capsys):
    assert "--overwrite" in error_of(capsys, "toy", "moons", "--out", toy, *TINY)
    assert "folder with a model" in error_of(capsys, "sample", tmp_path)


def test_guidance_needs_classes(plain, capsys):
    assert "without" in error_of(capsys, "sample", plain, "--guidance", 1)
    assert "without classes" in error_of(capsys, "sample", plain, "--label", 0)


def test_a_disc_lies_in_the_plane(plain, capsys):
    assert "points in the plane" in error_of(capsys, "sample", plain, "--avoid", 0, 0, 1)


def test_a_toy_is_told_to_be_no_run_and_a_run_no_toy(toy, tmp_path, capsys):
    for verb in ("info", "eval", "report", "explain"):
        assert f"got a model of points or images: use `n2a sample {toy}`" in error_of(capsys, verb, toy)
    (tmp_path / "config.json").write_text('{"format": 1, "experiment": {}}')
    assert f"got the run of a policy: use `n2a eval {tmp_path}`" in error_of(capsys, "sample", tmp_path)


def test_a_place_below_a_file_is_refused_before_the_work(toy, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("")
    inside = tmp_path / "x.txt" / "sub"
    assert "--out: expected a path through folders" in error_of(capsys, "toy", "moons", "--out", inside)
    assert "--out: expected a path through folders" in error_of(capsys, "sample", toy, "--out", inside / "a.npz")
    assert "--out: expected a path through folders" in error_of(capsys, "likelihood", toy, "--out", inside / "a.json")


def test_samples_that_are_not_kept_are_told(toy, tmp_path, capsys):
    assert run("sample", toy, "--n", 2) == 0
    assert "nothing is written: add --out" in capsys.readouterr().err
    assert run("sample", toy, "--n", 2, "--out", tmp_path / "a.npz") == 0
    assert "nothing is written" not in capsys.readouterr().err


def test_an_interrupt_tells_what_is_left(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("noise2action.commands.learning.fit", interrupt)
    assert run("toy", "moons", "--out", tmp_path, *TINY) == 130
    assert "nothing was saved; run the same command again" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr("noise2action.commands.toy._measure", interrupt)
    assert run("toy", "moons", "--out", tmp_path, *TINY) == 130
    assert f"n2a sample {tmp_path}" in capsys.readouterr().err


def test_the_classes_of_a_file_keep_their_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("noise2action.commands.toy._draw", lambda *_, **__: None)
    x, labels = np.random.default_rng(0).normal(size=(200, 2)), np.array([0.0, 2.5])[np.arange(200) % 2]
    np.savez(tmp_path / "a.npz", x=x, labels=labels)
    assert run("toy", tmp_path / "a.npz", "--out", tmp_path / "model", *TINY) == 0
    assert "0 is '0.0', 1 is '2.5'; --label takes the number" in capsys.readouterr().err
    assert run("sample", tmp_path / "model", "--n", 2, "--label", 1) == 0
    assert "0 is '0.0', 1 is '2.5'" in capsys.readouterr().err


def test_a_row_that_cannot_be_encoded_is_named(plain, tmp_path, capsys):
    x = np.zeros((9, 3))
    x[4, 1] = np.nan
    np.savetxt(tmp_path / "a.csv", x, delimiter=",")
    assert "NaN or infinity in row 4" in error_of(capsys, "sample", plain, "--encode", tmp_path / "a.csv")
