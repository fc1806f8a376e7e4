import math

import numpy as np
import pytest
import torch

from noise2action.data.points import POINTS, RING, SPIRAL_NOISE, find, read_points, source
from noise2action.errors import DataError
from noise2action.evaluate.distances import energy_distance, mode_coverage, off_mode_fraction

close = torch.testing.assert_close
EACH = pytest.mark.parametrize("name", POINTS)


@EACH
def test_a_draw_depends_on_its_seed_alone(name):
    one, again, other = (POINTS[name].draw(500, seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, again.x)
    assert not torch.isin(one.x, other.x).any()
    assert one.classes == POINTS[name].classes


@EACH
def test_the_support_holds_the_draws_and_no_noise(name):
    modes = POINTS[name].modes
    x = POINTS[name].draw(4000, 0).x
    assert off_mode_fraction(x, modes.centres, modes.radius, norm=modes.norm) < 2e-3
    assert mode_coverage(x, modes.centres, modes.radius, norm=modes.norm) == 1
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * 2
    assert off_mode_fraction(noise, modes.centres, modes.radius, norm=modes.norm) > 0.3


@EACH
def test_the_spread_is_about_one(name):
    x = POINTS[name].draw(20_000, 0).x
    assert ((x.std(0) > 0.5) & (x.std(0) < 1.3)).all()


def test_the_swiss_roll_is_its_formula():
    x = POINTS["swiss_roll"].draw(20_000, 3).x.double()
    # r = angle / 9 on the spiral: the residual along the radius is the noise but for its second-order part.
    radius, polar = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    turns = torch.round((radius * 9 - polar) / (2 * math.pi))
    residual = radius - (polar + 2 * math.pi * turns) / 9
    assert abs(float(residual.mean())) < 1e-2
    # Across the curve, whose slope r' / r is 1 / angle.
    close(float(residual.std()), SPIRAL_NOISE, rtol=0.05, atol=0)


def test_classes_of_the_ring_are_opposite_modes():
    points = POINTS["conditional_mixture"].draw(8000, 0)
    nearest = torch.cdist(points.x, torch.from_numpy(RING).float()).argmin(1)
    assert torch.equal(nearest % 4, points.labels)
    unlabelled = POINTS["mixture"].draw(8000, 5)
    assert unlabelled.labels is None
    assert energy_distance(points.x, unlabelled.x) < 1e-3


def test_quadrants_are_labelled_by_their_signs():
    points = POINTS["quadrants"].draw(2000, 0)
    signs = points.x.sign().int().tolist()
    assert [{(1, 1): 0, (-1, 1): 1, (-1, -1): 2, (1, -1): 3}[tuple(s)] for s in signs] == points.labels.tolist()


def test_checkerboard_squares_are_the_dark_ones():
    cell = (POINTS["checkerboard"].draw(4000, 0).x + 2).floor()
    assert ((cell.sum(1) % 2) == 0).all()
    assert ((cell >= 0) & (cell <= 3)).all()


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(DataError, match="did you mean 'swiss_roll'"):
        find("swissroll")


def table(n=120, columns=3):
    return np.random.default_rng(0).normal(size=(n, columns))


def test_every_format_gives_the_same_points(tmp_path):
    x, labels = table(), np.arange(120) % 3 + 5
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", anything=x, labels=labels)
    rows = [",".join([*map(repr, map(float, row)), "rgb"[k - 5]]) for row, k in zip(x, labels, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["u, v, w, label", *rows, ""]))
    npy, npz, text = (read_points(tmp_path / f"a.{suffix}") for suffix in ("npy", "npz", "csv"))
    for found in (npy, npz, text):
        close(found.x, torch.from_numpy(x).float(), rtol=0, atol=0)
    assert npy.labels is None
    assert npz.labels.tolist() == (labels - 5).tolist()
    assert (npy.names, npz.names, text.names) == ((), ("5", "6", "7"), ("b", "g", "r"))
    assert npz.rows(slice(3)).names == npz.names
    # Named classes are numbered in sorted order: b, g, r.
    assert text.labels.tolist() == [2 - (k - 5) if k != 6 else 1 for k in labels.tolist()]


def test_a_csv_without_header_is_all_points(tmp_path):
    np.savetxt(tmp_path / "a.csv", table(columns=2), delimiter=",")
    assert read_points(tmp_path / "a.csv").x.shape == (120, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: np.save(p / "a.npy", table(50)), "at least 100 rows"),
        (lambda p: np.save(p / "a.npy", table(columns=1)), "at least 2 columns"),
        (lambda p: np.save(p / "a.npy", table()[None]), "2-D array"),
        (lambda p: np.save(p / "a.npy", np.where(np.arange(360).reshape(120, 3) == 33, np.nan, 1)), "in row 11"),
        (lambda p: np.save(p / "a.npy", table() * [1, 0, 1]), "remove column 1"),
        (lambda p: np.save(p / "a.npy", np.full((120, 2), "x")), "array of numbers"),
        (lambda p: np.save(p / "a.npy", table() * 1e300), "finite numbers"),
        (lambda p: np.save(p / "a.npy", np.array([{}] * 120), allow_pickle=True), "damaged file"),
        (lambda p: np.savez(p / "a.npz", a=table(), b=table()), "called x"),
        (lambda p: np.savez(p / "a.npz", x=table(), labels=np.arange(3)), "one label a row"),
        (lambda p: np.savez(p / "a.npz", x=table(), labels=np.arange(120)), "120 classes"),
        (lambda p: (p / "a.npz").write_bytes(b"PK\x03\x04 not a zip"), "damaged file"),
        (lambda p: (p / "a.csv").write_text("a,b\n1,2\n3\n"), "2 columns in line 1 and 1 in line 3"),
        (
            lambda p: (p / "a.csv").write_text("a,b\n" + "1,red\n" * 120),
            r"'red' in line 2, column 2 \(b\): name a column",
        ),
        (
            lambda p: (p / "a.csv").write_text("a,b\n" + "1,2\n" * 3 + ",4\n"),
            r"got '' in line 5, column 1 \(a\): fill it",
        ),
        (lambda p: (p / "a.csv").write_text("1;2\n" * 120), "got semicolons: save it with commas"),
        (lambda p: (p / "a.csv").write_text("a\tb\n" + "1\t2\n" * 120), "got tabs: save it with commas"),
        (lambda p: (p / "a.csv").write_text("a,b\n"), "below the header, got none"),
        (lambda p: (p / "a.csv").write_text(""), "got an empty file"),
        (lambda p: (p / "a.npy").write_bytes(b""), "got an empty file"),
        (
            lambda p: (p / "a.npy").write_bytes(b"garbage" * 9),
            "got another kind of file: save the array again with numpy",
        ),
        (
            lambda p: (p / "a.npz").write_bytes(b"garbage" * 9),
            "got another kind of file: save the array again with numpy",
        ),
        (lambda p: (p / "a.txt").write_text("1 2"), r"\.txt"),
        (lambda _: None, "readable file"),
    ],
)
def test_bad_files_are_refused(make, message, tmp_path):
    make(tmp_path)
    path = next(tmp_path.iterdir(), tmp_path / "none.npy")
    with pytest.raises(DataError, match=message):
        read_points(path)


def test_the_parts_of_a_file_share_no_row(tmp_path):
    np.savez(tmp_path / "a.npz", x=table(200), labels=np.arange(200) % 2)
    found = source(str(tmp_path / "a.npz"), training=7, size=1000, trials=3, seed=0)
    parts = [found.training, *found.held_out, *found.data]
    assert [len(p) for p in parts] == [120, 40, 40]
    assert len(torch.cat([p.x for p in parts]).unique(dim=0)) == 200
    assert source(str(tmp_path / "a.npz"), training=7, size=10, trials=3, seed=0).held_out[0].x.shape == (10, 3)


def test_the_parts_of_a_distribution_are_separate_draws():
    found = source("moons", training=100, size=50, trials=2, seed=0)
    parts = [found.training, *found.held_out, *found.data]
    assert [len(p) for p in parts] == [100, 50, 50, 50, 50]
    assert len(torch.cat([p.x for p in parts]).unique(dim=0)) == 300
    assert torch.equal(POINTS["moons"].draw(50, found.seeds["data"][1]).x, found.data[1].x)
