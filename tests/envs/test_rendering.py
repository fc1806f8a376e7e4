"""Pictures: the same state gives the same pixels, the right way up; what is missing is named."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the extra `sim` is not installed: MuJoCo's pictures are not tested")
import mujoco

from noise2action.envs import maze, rendering
from noise2action.envs.maze import Maze
from noise2action.envs.rendering import Renderer, cameras
from noise2action.errors import TaskError

SCENE = """
<mujoco>
  <visual><quality offsamples="8" shadowsize="1024"/></visual>
  <worldbody>
    <light pos="1 1 3" castshadow="true"/>
    <geom type="plane" size="2 2 .1" rgba=".8 .8 .7 1"/>
    <geom type="box" size=".2 .1 .3" pos=".4 .1 .3" rgba="1 0 0 1"/>
    <body name="ball" pos="-.3 0 .4"><freejoint/><geom size=".2" rgba="0 0 1 1"/></body>
    <camera name="front" pos="0 -3 1" xyaxes="1 0 0 0 .3 1"/>
    <camera name="hanging" pos="0 -3 1" xyaxes="-1 0 0 0 -.3 -1"/>
    <camera name="above" pos="0 0 4"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def scene():
    try:
        rendering.platform()
    except TaskError as error:
        pytest.skip(str(error))
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_a_state_has_one_picture(scene) -> None:
    model, data = scene
    assert cameras(model) == ("front", "hanging", "above")
    renderer = Renderer(model, camera="front", size=96)
    first = renderer.picture(data)
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.uint8
    # Neither other renderers, made and freed in between, nor other states leave a trace.
    other = Renderer(model, camera="above", size=224)
    assert other.picture(data).shape == (224, 224, 3)
    before = data.qpos.copy()
    data.qpos[:3] = 0.3, 0.3, 1.0
    mujoco.mj_forward(model, data)
    assert np.abs(renderer.picture(data).astype(int) - first).max() > 50
    other.close()
    other.close()
    data.qpos[:] = before
    mujoco.mj_forward(model, data)
    np.testing.assert_array_equal(renderer.picture(data), first)
    np.testing.assert_array_equal(Renderer(model, camera="front", size=96).picture(data), first)


def test_what_changes_in_the_model_shows_and_the_model_is_left_as_it_was(scene) -> None:
    model, data = scene
    renderer = Renderer(model, camera="front", size=64)
    red = renderer.picture(data)
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (8, 1024)
    colour = model.geom_rgba[1].copy()
    model.geom_rgba[1] = 0, 1, 0, 1
    green = renderer.picture(data)
    model.geom_rgba[1] = colour
    changed = (red != green).any(-1)
    assert changed.any()
    assert np.all(red[changed][:, 0] > red[changed][:, 1])
    assert np.all(green[changed][:, 1] > green[changed][:, 0])


def test_a_picture_shows_what_is_right_on_the_right_and_up_on_top(scene) -> None:
    model, data = scene
    for camera in ("front", "hanging"):
        picture = Renderer(model, camera=camera, size=96).picture(data).astype(int)
        red, blue = picture[..., 0] - picture[..., 2], picture[..., 2] - picture[..., 0]
        (_, box), (height, ball) = (np.argwhere(colour > 60).mean(0) for colour in (red, blue))
        assert ball < 48 < box
        # The floor, grey, is below the ball; nothing is above.
        assert picture[:5].mean() < 20 < picture[-5:].mean()
        assert 20 < height < 76
    # Turned about its axis and back, a camera sees the same up to where pixels are sampled.
    a, b = (Renderer(model, camera=camera, size=96).picture(data).astype(int) for camera in ("front", "hanging"))
    assert np.abs(a - b).mean() < 1 < np.abs(a - a[::-1, ::-1]).mean()


def test_a_wrong_camera_or_size_is_named(scene) -> None:
    model, _ = scene
    with pytest.raises(TaskError, match=r"got 'frnt': known: above, front, hanging \(did you mean 'front'\?\)"):
        Renderer(model, camera="frnt", size=96)
    for size in (0, 5000):
        with pytest.raises(TaskError, match=f"1 to 4096 pixels, got {size}"):
            Renderer(model, camera="front", size=size)


def test_without_a_library_that_draws_its_packages_are_named_and_states_still_work(monkeypatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    monkeypatch.setattr(rendering, "_works", lambda name: False)
    maze._renderer.cache_clear()
    env = Maze()
    env.reset(seed=0)
    env.step(np.ones(2, np.float32))
    with pytest.raises(TaskError, match=r"apt-get install libegl1 libgl1.*apt-get install libosmesa6"):
        env.render()
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(TaskError, match="MUJOCO_GL=off forbids"):
        env.render()


def test_a_platform_that_there_is_none_of_is_named_not_installed() -> None:
    code = "from noise2action.envs.tasks import find; find('maze').make()"
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = "TaskError: expected MUJOCO_GL of egl, osmesa or disable, got 'nonsense': unset it"
    assert done.stderr.strip().splitlines()[-1].endswith(said)


def test_the_platform_asked_for_is_kept_and_one_that_works_is_found(monkeypatch) -> None:
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    monkeypatch.setattr(rendering, "_works", lambda name: name == "osmesa")
    monkeypatch.setenv("MUJOCO_GL", " EGL ")
    assert rendering.platform() == "egl"
    monkeypatch.delenv("MUJOCO_GL")
    assert rendering.platform() == "osmesa"
    # Processes started from here need not look again.
    assert rendering.os.environ["MUJOCO_GL"] == "osmesa"


def test_a_platform_is_tried_where_it_can_do_no_harm() -> None:
    assert not rendering._works("nothing")
