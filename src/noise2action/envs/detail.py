"""Meshes no finer than a picture shows: a software renderer spends its time on triangles, also those below a pixel.

The corners of a mesh that share a cell of a fine grid become the one nearest to their mean; triangles that lose their
area by that are not drawn. **Source:** Rossignac & Borrel 1993 (vertex clustering).
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = 0.5
"""Size of a cell as seen at the centre of the scene, or at the body that carries the camera."""
CELLS = 32
"""A mesh is at least as many cells long: a small one, nearer than the centre, keeps its shape."""


def cell(model: Any, camera: int, size: int) -> float:  # noqa: ANN401 - mujoco is optional
    """Return the size (m) of the cells for pictures [size, size].

    A camera that moves may come close to everything, but not to the body that carries it.
    """
    carried = model.cam_bodyid[camera] != 0
    away = np.linalg.norm(model.cam_pos[camera] - (0 if carried else model.stat.center))
    return float(PIXELS * 2 * away * np.tan(np.radians(model.cam_fovy[camera]) / 2) / size)


@contextmanager
def coarsened(model: Any, largest: float) -> Generator[None]:  # noqa: ANN401
    """Merge the corners of the model's meshes in cells of at most `largest` (m) meanwhile; physics must wait."""
    arrays = model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord, model.mesh_facenum
    whole = [array.copy() for array in arrays]
    try:
        for mesh in range(model.nmesh):
            corners = _part(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
            begin, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
            size = min(largest, float(np.ptp(corners, axis=0).max()) / CELLS)
            if size > 0:
                faces, kept = merged(corners, _part(model.mesh_face, begin, count), size)
                for array in arrays[1:3]:
                    _part(array, begin, len(kept))[:] = _part(array, begin, count)[kept]
                _part(model.mesh_face, begin, len(kept))[:] = faces
                model.mesh_facenum[mesh] = len(kept)
        yield
    finally:
        for array, values in zip(arrays, whole, strict=True):
            array[:] = values


def merged(
    corners: NDArray[np.float32], faces: NDArray[np.int32], size: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the triangles [M, 3] that are left where corners [V, 3] share cells of `size`, and which they were [M]."""
    _, cells = np.unique(np.floor(corners / size).astype(np.int64), axis=0, return_inverse=True)
    cells = cells.ravel()
    means = np.stack([np.bincount(cells, weights=x) for x in corners.T], axis=1) / np.bincount(cells)[:, None]
    order = np.lexsort((((corners - means[cells]) ** 2).sum(axis=1), cells))
    nearest = order[np.unique(cells[order], return_index=True)[1]]
    found = nearest[cells][faces].astype(np.int32)
    kept = np.flatnonzero((found != np.roll(found, 1, axis=1)).all(axis=1))
    # Both sides of a thin part may become one triangle, seen from two sides: the order of its corners tells them apart.
    turned = np.take_along_axis(found[kept], (found[kept].argmin(axis=1)[:, None] + np.arange(3)) % 3, axis=1)
    kept = kept[np.sort(np.unique(turned, axis=0, return_index=True)[1])]
    return found[kept], kept


def _part(array: NDArray[Any], begin: int, count: int) -> NDArray[Any]:
    return array[begin : begin + count]
