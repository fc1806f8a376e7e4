"""Fast pictures of MuJoCo scenes without a display.

Shadows, reflections and multisampling, which a software renderer spends nearly all of its time on, are off, and meshes
have few more triangles than a picture shows (`detail.py`). The OpenGL platform is chosen when the first picture is
asked for, not when `mujoco` is imported: states need none.
"""

import atexit
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtraError, TaskError, did_you_mean
from .detail import cell, coarsened

HEADLESS = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6"}
"""OpenGL platforms that need no display, the first that works is taken; the Debian packages that bring each."""
PLATFORMS = (*HEADLESS, "glfw")
"""What `MUJOCO_GL` may ask for."""
OFF = ("disable", "disabled", "off", "false", "0")
"""Values of `MUJOCO_GL` with which nothing is drawn."""
LARGEST = 4096
"""Pixels along an edge."""
MAX_GEOMS = 2000
"""Shapes that a scene may hold."""


@cache
def mujoco() -> ModuleType:
    """Return the physics library.

    `MissingExtraError` without the extra; `TaskError` where `MUJOCO_GL` asks for what is not there, since the library
    looks for it on import, pictures or not.
    """
    try:
        return import_module("mujoco")
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "sim") from error
    except Exception as error:  # Of which kind, each platform's library decides.
        raise TaskError(_remedy(_refused(error))) from error


def _works(platform: str) -> bool:
    """Return whether a context can be made, tried in a child process: a broken driver can end the one that asks."""
    attempt = f"from mujoco.{platform} import GLContext; GLContext(8, 8).make_current(); import os; os._exit(0)"
    # Importing mujoco.egl imports mujoco, which must not look for a display meanwhile.
    environment = {**os.environ, "MUJOCO_GL": platform}
    command = [sys.executable, "-c", attempt]
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)  # noqa: S603
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def platform() -> str:
    """Return the OpenGL platform: `MUJOCO_GL` where it is set, on Linux otherwise the first of `HEADLESS` that works.

    What was found is put into `MUJOCO_GL`, so that processes started from here need not look again. `TaskError` that
    names the missing system packages if there is none.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked in OFF:
        raise TaskError(f"expected to draw a picture, but MUJOCO_GL={asked} forbids it: unset it, or use states only")
    if asked or sys.platform != "linux":
        return asked
    for name in HEADLESS:
        if _works(name):
            os.environ["MUJOCO_GL"] = name
            return name
    raise TaskError(_remedy("neither EGL nor OSMesa works here"))


def _refused(error: Exception) -> str:
    return f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} fails ({error})"


def _remedy(found: str) -> str:
    asked = os.environ.get("MUJOCO_GL", "")
    if asked.lower().strip() not in (*PLATFORMS, *OFF, ""):
        return f"expected MUJOCO_GL of egl, osmesa or disable, got {asked!r}: unset it"
    packages = ", or ".join(f"`apt-get install {names}` ({name})" for name, names in HEADLESS.items())
    remedy = f"{packages}, or unset MUJOCO_GL and use states only"
    return f"expected an OpenGL library that draws without a display, {found}: {remedy}"


def _context() -> Any:  # noqa: ANN401 - mujoco's, another class on each platform
    """Return a new OpenGL context, current."""
    library, name = mujoco(), platform()
    try:
        module = import_module(f"mujoco.{name}") if name in HEADLESS else library
        # OSMesa wants a size, but drawing goes to a buffer of its own.
        context = module.GLContext(8, 8)
        context.make_current()
    except Exception as error:  # Of which kind, each platform's library decides.
        raise TaskError(_remedy(_refused(error))) from error
    return context


def _drawing(model: Any, camera: int, size: int) -> Any:  # noqa: ANN401
    """Return mujoco's drawing context for pictures of the model in the current OpenGL context."""
    library, quality = mujoco(), model.vis.quality
    asked = quality.offsamples, quality.shadowsize
    # Multisampling and the buffer of shadows; read when the drawing context is made, and only then.
    quality.offsamples = quality.shadowsize = 0
    try:
        with coarsened(model, cell(model, camera, size)):
            drawing = library.MjrContext(model, library.mjtFontScale.mjFONTSCALE_100.value)
    except library.FatalError as error:
        raise TaskError(_remedy(_refused(error))) from error
    finally:
        quality.offsamples, quality.shadowsize = asked
    library.mjr_setBuffer(library.mjtFramebuffer.mjFB_OFFSCREEN.value, drawing)
    library.mjr_resizeOffscreen(size, size, drawing)
    return drawing


_open: WeakSet["Renderer"] = WeakSet()


@cache
def _close_at_exit() -> None:
    """Close the open renderers when the process ends, before mujoco ends the platform that they need for it."""
    atexit.register(lambda: [renderer.close() for renderer in list(_open)])


class Renderer:
    """What one camera of a `mujoco.MjModel` sees, in pictures [size, size, 3].

    What changes in the model afterwards (sizes, colours, positions) shows; meshes and textures are loaded once.
    """

    _gl: Any = None
    _drawing: Any = None

    def __init__(self, model: Any, *, camera: str, size: int) -> None:  # noqa: ANN401 - mujoco is optional
        """Prepare the drawing; `TaskError` for an unknown camera, a size outside 1 to 4096, or where nothing draws."""
        if not 1 <= size <= LARGEST:
            raise TaskError(f"expected a picture of 1 to {LARGEST} pixels, got {size}: choose one, such as 96")
        library = mujoco()
        self._camera = int(library.mj_name2id(model, library.mjtObj.mjOBJ_CAMERA.value, camera))
        if self._camera < 0:
            raise TaskError(f"expected a camera, got {camera!r}: {did_you_mean(camera, cameras(model))}")
        self._gl = _context()
        _open.add(self)
        _close_at_exit()
        self._model, self._size = model, size
        self._drawing = _drawing(model, self._camera, size)
        self._scene = library.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in (library.mjtRndFlag.mjRND_SHADOW, library.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._options, self._view = library.MjvOption(), library.MjvCamera()
        self._view.type, self._view.fixedcamid = library.mjtCamera.mjCAMERA_FIXED, self._camera

    def picture(self, data: Any) -> NDArray[np.uint8]:  # noqa: ANN401
        """Return what the camera sees of the state `data` (forward kinematics done) as uint8 [size, size, 3].

        A camera that the scene mounts upside down is turned upright.
        """
        library = mujoco()
        self._gl.make_current()
        everything = library.mjtCatBit.mjCAT_ALL.value
        library.mjv_updateScene(self._model, data, self._options, None, self._view, everything, self._scene)
        area = library.MjrRect(0, 0, self._size, self._size)
        pixels = np.empty((self._size, self._size, 3), np.uint8)
        library.mjr_render(area, self._scene, self._drawing)
        library.mjr_readPixels(pixels, None, area, self._drawing)
        # OpenGL's rows begin at the bottom. One that moves with a body may turn over: that is what it sees.
        over = self._model.cam_bodyid[self._camera] == 0 and data.cam_xmat[self._camera, 7] < -1e-6
        return np.ascontiguousarray(pixels[:, ::-1] if over else pixels[::-1])

    def close(self) -> None:
        """Free what it holds; once is enough."""
        gl, self._gl = self._gl, None
        if gl is not None:
            # Freed while another context is current, it would free the other's textures.
            gl.make_current()
            if self._drawing is not None:
                self._drawing.free()
            gl.free()

    def __del__(self) -> None:
        self.close()


def cameras(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the names of the model's cameras."""
    return tuple(str(model.camera(k).name) for k in range(model.ncam))
