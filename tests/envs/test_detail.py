"""Coarser meshes: their corners stay within a cell, the pictures nearly the same, and the model as it was."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

pytest.importorskip("metaworld", reason="the extra `sim` is not installed: pictures of the arm are not tested")

from noise2action.envs import detail, rendering
from noise2action.envs.grasp import Grasp
from noise2action.envs.rendering import Renderer, cameras
from noise2action.errors import TaskError


@pytest.fixture(scope="module")
def arm() -> Iterator[Grasp]:
    try:
        rendering.platform()
    except TaskError as error:
        pytest.skip(str(error))
    env = Grasp()
    env.reset(seed=0)
    yield env
    env.close()


def ball(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(count, 3))
    corners = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return corners, ConvexHull(corners).simplices.astype(np.int32)


@given(seed=st.integers(0, 1000), size=st.floats(0.01, 3.0))
def test_corners_move_within_their_cell_and_no_triangle_is_left_without_area(seed: int, size: float) -> None:
    corners, faces = ball(seed)
    found, kept = detail.merged(corners, faces, size)
    assert found.shape == (len(kept), 3)
    assert (np.diff(kept) > 0).all()
    moved = corners[found] - corners[faces[kept]]
    assert (np.abs(moved) < size).all()
    assert all(len(set(face)) == 3 for face in found.tolist())
    assert len({tuple(np.roll(face, -face.argmin())) for face in found}) == len(found)


def test_a_grid_finer_than_the_mesh_changes_nothing_and_one_coarser_leaves_nothing() -> None:
    corners, faces = ball(1)
    found, kept = detail.merged(corners, faces, 1e-4)
    assert np.array_equal(found, faces)
    assert len(kept) == len(faces)
    assert len(detail.merged(corners + 2, faces, 10.0)[0]) == 0


def test_both_sides_of_a_sheet_are_kept() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.01], [1, 0, 0.01], [0, 1, 0.01]], np.float32)
    faces = np.array([[0, 1, 2], [5, 4, 3], [3, 5, 4], [4, 3, 5]], np.int32)
    found, kept = detail.merged(corners, faces, 0.1)
    # The third and fourth are the second again, from another corner on.
    assert kept.tolist() == [0, 1]
    assert sorted(found[0].tolist()) == sorted(found[1].tolist())


@pytest.mark.parametrize(
    ("camera", "size", "left"),
    [
        ("corner2", 96, 0.5),
        ("corner2", 224, 0.5),
        ("table", 96, 0.5),
        ("behindGripper", 96, 0.7),
        ("gripperPOV", 96, 0.9),
    ],
)
def test_a_picture_is_nearly_the_same_of_far_fewer_triangles(
    arm, monkeypatch, camera: str, size: int, left: float
) -> None:
    model, data = arm._furnished(), arm._data
    cell = detail.cell(model, cameras(model).index(camera), size)
    with detail.coarsened(model, cell):
        few = int(model.mesh_facenum.sum())
    assert few < left * model.mesh_facenum.sum()
    found = Renderer(model, camera=camera, size=size).picture(data).astype(int)
    monkeypatch.setattr(rendering, "cell", lambda *_: 0.0)
    whole = Renderer(model, camera=camera, size=size).picture(data).astype(int)
    apart = np.abs(found - whole).max(axis=2)
    # Silhouettes and highlights move by less than a pixel; without the arm hundreds of pixels are another colour.
    assert apart.mean() < 1
    assert (apart > 20).mean() < 0.01
    assert whole.std() > 20


def test_the_model_is_left_as_it_was_whatever_happens(arm) -> None:
    model = arm._furnished()
    names = ("mesh_face", "mesh_facenum", "mesh_facenormal", "mesh_facetexcoord", "mesh_vert")
    before = {name: getattr(model, name).copy() for name in names}

    def interrupted() -> None:
        with detail.coarsened(model, 0.01):
            assert model.mesh_facenum.sum() < before["mesh_facenum"].sum()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    Renderer(model, camera="corner2", size=96).close()
    for name, array in before.items():
        assert np.array_equal(getattr(model, name), array), name


def test_cells_are_half_a_pixel_at_the_centre_or_at_the_body_that_carries_the_camera(arm) -> None:
    model = arm._furnished()
    small, large = (detail.cell(model, cameras(model).index("corner2"), size) for size in (96, 192))
    assert small == pytest.approx(2 * large)
    away = np.linalg.norm(model.cam_pos[cameras(model).index("corner2")] - model.stat.center)
    assert 96 * small / away == pytest.approx(np.tan(np.radians(30)))
    carried = cameras(model).index("behindGripper")
    assert 96 * detail.cell(model, carried, 96) / 0.5 == pytest.approx(np.tan(np.radians(30)))
