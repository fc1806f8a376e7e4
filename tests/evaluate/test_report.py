"""The report: the page is well-formed and loads nothing; videos and figures are what they say."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from stand_ins import TASK, Wander

from noise2action.data.normalize import Normalizer
from noise2action.errors import MissingExtraError
from noise2action.evaluate import figures
from noise2action.evaluate.latency import Latency, Percentiles
from noise2action.evaluate.report import Drawing, Report, Video, render, seed_ranges, write_report
from noise2action.evaluate.result import About, Evaluation
from noise2action.evaluate.rollouts import EpisodeResult, rollout
from noise2action.evaluate.scenes import denoise_chunks, trajectories, two_routes_scene
from noise2action.evaluate.statistics import wilson
from noise2action.evaluate.video import encode_mp4
from noise2action.nets import MLPConfig
from noise2action.policies.diffusion import DiffusionConfig
from noise2action.policies.policy import PolicySpec
from noise2action.seeds import generator

av = pytest.importorskip("av", reason="the extra report is not installed")

HOSTILE = "<script>alert('x')</script>\"&"
LATENCY = Latency(Percentiles(4.0, 9.0), {"encode": Percentiles(1.0, 2.0), "denoise": Percentiles(3.0, 7.0)}, 100, 1)


def frames(count, height, width):
    for k in range(count):
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        picture[: height // 2] = 10 * k
        yield picture


def evaluation(policy, successes, *, latency=LATENCY):
    about = About("two_routes", policy, "ema", "DDIM, 8 steps", 8, 10.0, 8, "m/s")
    results = tuple(
        EpisodeResult(100 + k, k < successes, float(k < successes), 40, "left" if k % 2 else "right", 3.0 + k, 0.2, 0.1)
        for k in range(20)
    )
    return Evaluation(about, results, latency, {"left": 0.5, "right": 0.5})


def records(*, validated=True):
    for step in range(10, 201, 10):
        buckets = [None if step == 10 and k == 2 else 1.0 / (step + k) for k in range(10)]
        yield {"kind": "train", "step": step, "loss": 5.0 / step, "lr": 1e-4, "grad_norm": 1.0, "samples_per_s": 100.0,
               "elapsed_s": step / 10, "buckets": buckets}  # fmt: skip
        if validated and step % 50 == 0:
            yield {"kind": "validation", "step": step, "loss": 6.0 / step, "action_error": 1.0 / step,
                   "action_error_unit": "m/s", "elapsed_s": step / 10}  # fmt: skip


def full_report():
    scene = two_routes_scene()
    way = figures.Trajectory(np.array([[0.0, 0.1], [0.2, 0.5], [0.0, 0.85]]), "right")
    return Report(
        title=HOSTILE,
        evaluations=[evaluation(HOSTILE, 19), evaluation("flow", 12), evaluation("flow", 3)],
        records=list(records()),
        config={"note": HOSTILE, "seed": 0},
        drawings=[Drawing(HOSTILE, figures.plane_trajectories(scene, [figures.Panel(HOSTILE, [way])]), HOSTILE)],
        videos=[Video(encode_mp4(frames(3, 64, 64), 10.0), HOSTILE)],
    )


def test_video_comes_back_with_its_size_length_and_pictures():
    data = encode_mp4(frames(17, 300, 401), 10.0)
    # the index (moov) before the data (mdat): browsers start at once
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 10
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(seen) == 17
    assert seen[0].shape == (300, 402, 3)
    for k, picture in enumerate(seen):
        assert picture[20:120, 20:380].mean() == pytest.approx(10 * k, abs=3)
        assert picture[180:280, 20:380].mean() == pytest.approx(0, abs=3)


def test_small_frames_are_enlarged_by_a_whole_factor():
    with av.open(io.BytesIO(encode_mp4(frames(2, 96, 97), 12.5))) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, float(stream.average_rate)) == (288, 292, 12.5)


def test_videos_need_frames_of_one_size():
    with pytest.raises(ValueError, match="at least one"):
        encode_mp4([], 10.0)
    with pytest.raises(ValueError, match="one size"):
        encode_mp4([*frames(1, 64, 64), *frames(1, 64, 66)], 10.0)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"noise2action\[report\]"):
        encode_mp4(frames(1, 64, 64), 10.0)


class Page(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "poster", "action", "srcset", "data")]
        self.ids += [v for k, v in attrs if k == "id"]


@pytest.fixture(scope="module")
def html():
    return render(full_report())


def test_the_page_is_well_formed(html):
    body = html.removeprefix("<!DOCTYPE html>\n")
    root = ElementTree.fromstring(body)
    assert root.tag == "html"
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert page.tags.count("h1") == 1
    assert page.tags.count("figcaption") >= 5


def test_the_page_loads_nothing_and_runs_nothing(html):
    page = Page(html)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in html


def test_every_text_is_escaped(html):
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 8


def test_the_page_says_what_was_measured(html):
    for text in (
        "95.0 %", "seeds 100 to 119", "n = 20", "+35.0 pp", "within one tick of 100 ms", "m/s⁴", "20 episodes",
        "Total variation", "200 optimiser steps", "Failed seeds: 119",
    ):  # fmt: skip
        assert text in html, text


def test_the_video_is_inside(html):
    (video,) = re.findall(r'src="data:video/mp4;base64,([^"]+)"', html)
    assert base64.b64decode(video)[4:8] == b"ftyp"


def test_sections_without_content_are_left_out(tmp_path):
    write_report(tmp_path / "report.html", Report("empty"))
    empty = (tmp_path / "report.html").read_text()
    assert "<section" not in empty
    only_training = render(Report("t", records=list(records(validated=False))))
    assert re.findall(r'<section id="([^"]*)"', only_training) == ["training"]
    without_latency = render(Report("e", evaluations=[evaluation("a", 3, latency=None)]))
    assert 'id="latency"' not in without_latency


def test_seed_ranges():
    assert seed_ranges([5, 3, 4, 9, 11, 12]) == "3 to 5, 9, 11 to 12"


def values(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_loss_curves_draw_the_records():
    axes = figures.loss_curves(list(records())).axes
    x, y = values(axes[0].lines[0])
    np.testing.assert_array_equal(x, np.arange(10, 201, 10))
    np.testing.assert_allclose(y, 5 / x)
    np.testing.assert_allclose(values(axes[0].lines[2])[1], [6 / s for s in (50, 100, 150, 200)])
    assert "m/s" in axes[1].get_ylabel()
    assert len(figures.loss_curves(list(records(validated=False))).axes) == 1


def test_bucket_losses_average_parts_of_the_run_and_leave_out_nulls():
    lines = figures.bucket_losses(list(records()), moments=2).axes[0].lines
    centres, late = values(lines[1])
    np.testing.assert_allclose(centres, np.arange(10) / 10 + 0.05)
    assert late[0] == pytest.approx(np.mean([1 / s for s in range(110, 201, 10)]))
    # the null of the first record is no zero
    assert values(lines[0])[1][2] == pytest.approx(np.mean([1 / (s + 2) for s in range(20, 101, 10)]))


def test_bars_are_as_long_as_their_numbers():
    bars = figures.success_bars({"a": wilson(9, 10), "b": wilson(0, 10)}).axes[0].patches
    assert [bar.get_width() for bar in bars] == [90, 0]
    axes = figures.latency_bars({"a": LATENCY}, period_ms=100.0, stride=8).axes[0]
    assert axes.patches[0].get_width() == 4
    low, high = axes.get_xlim()
    assert low < 4
    assert high > 800


def test_trajectories_come_from_the_observations():
    results = rollout(TASK, Wander(), [0, 1, 2])
    found = trajectories(results)
    for result, trajectory in zip(results, found, strict=True):
        assert trajectory.points.shape == (result.steps + 1, 2)
        assert (trajectory.route, trajectory.success) == (result.route, result.success)
    figure = figures.plane_trajectories(two_routes_scene(), [figures.Panel("a", found), figures.Panel("b", found[:1])])
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["a", "b"]


def test_constant_velocities_integrate_to_a_straight_line():
    path = figures.integrate(np.full((3, 20, 2), [0.5, -1.0]), np.array([1.0, 2.0]), 10.0)
    assert path.shape == (3, 21, 2)
    np.testing.assert_allclose(path[0, 0], [1, 2])
    np.testing.assert_allclose(path[:, -1], [[2, 0]] * 3)


def test_svg_follows_the_page_and_keeps_its_ids_apart():
    figure = figures.success_bars({"a": wilson(9, 10)})
    first, second = (figures.svg(figure, name, 'a "b" <c>') for name in ("one", "two"))
    assert ElementTree.fromstring(first).tag.endswith("svg")
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    assert "currentColor" in first
    assert figures.INK not in first
    assert figures.png_uri(figure).startswith("data:image/png;base64,iVBOR")


def test_denoising_starts_at_noise_and_ends_at_the_plan():
    arrays = {"position": np.array([[-1.0, 0.0], [1.0, 3.0]]), "action": np.array([[-2.0, 1.0], [2.0, 5.0]])}
    normalizer = Normalizer.fit(arrays, dict.fromkeys(arrays, "limits"))
    torch.manual_seed(0)
    config = DiffusionConfig(spec=PolicySpec(2, 6, 4, 0, 10.0), net=MLPConfig(width=16, blocks=1, condition_width=16))
    policy = config.build(TASK.schema, normalizer)
    found = denoise_chunks(policy, {"position": np.zeros(2, dtype=np.float32)}, chunks=4, columns=3, seed=7)
    assert (found.levels[0], found.levels[-1], len(found.levels)) == (1, 0, 3)
    plan = policy.plan({"position": torch.zeros(4, 2, 2)}, generator=generator(7, "denoising"))
    np.testing.assert_array_equal(found.actions[-1], plan.numpy())
    noise = torch.randn(4, 6, 2, generator=generator(7, "denoising"))
    # action limits are [-2, 2] and [1, 5]: half ranges 2, centres 0 and 3
    np.testing.assert_allclose(found.actions[0], 2 * noise.numpy() + [0, 3], atol=1e-5)
    assert found.paths(np.zeros(2), 10.0).shape == (3, 4, 7, 2)
