import json
import re
import textwrap
from pathlib import Path

import pytest
import torch

from noise2action.cli import main
from noise2action.evaluate.check_env import CHECKS as ENV_CHECKS
from noise2action.evaluate.check_policy import CHECKS
from noise2action.policies import RegressionConfig
from noise2action.policies.checkpoint import Checkpoint, Deployed, save
from small_policies import NET, SCHEMA, SPEC, build, episodes, normalizer

LIFT = """
    import numpy as np
    from gymnasium import Env
    from gymnasium.spaces import Box, Dict
    from parts import START

    class Lift(Env):
        render_mode = "rgb_array"
        observation_space = Dict({"height": Box(-10, 10, (1,))})
        action_space = Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.height, self.steps = START + self.RNG.uniform(0, 0.1, 1), 0
            return self.seen(), {}

        def step(self, action):
            if np.shape(action) != (1,) or not np.isfinite(action).all():
                raise ValueError("expected one finite number")
            self.height, self.steps = self.height + 0.1 * np.clip(action, -1, 1), self.steps + 1
            won = bool(self.height > 1)
            return self.seen(), 0.0, won, self.steps >= 40, {"success": won, "score": float(won)}

        def seen(self):
            return {"height": self.height.astype(np.float32)}

        def render(self):
            return np.zeros((4, 4, 3), np.uint8)

    class Sized(Lift):
        def __init__(self, size, *, colour):
            pass
"""


@pytest.fixture
def written(tmp_path):
    (tmp_path / "parts.py").write_text("START = 0.0\n")
    for name, rng in (("sound_lift", "np_random"), ("broken_lift", "noise")):
        body = textwrap.dedent(LIFT).replace("self.RNG", f"self.{rng}")
        (tmp_path / f"{name}.py").write_text(body + "\nLift.noise = np.random.default_rng()\n")
    (tmp_path / "faulty.py").write_text("import a_module_that_is_nowhere\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    return tmp_path


def test_a_file_of_ones_own_is_checked_and_may_import_what_lies_beside_it(written, capsys):
    assert main(["check", "env", f"{written}/sound_lift.py:Lift", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("Lift: clean")
    assert main(["check", "env", f"{written}/broken_lift.py:Lift", "--seeds", "2"]) == 1
    out = capsys.readouterr().out
    assert "finding  same seed" in out
    assert "remedy: super().reset(seed=seed)" in out
    assert "skipped  replay" in out


def test_a_folder_may_have_an_at_in_its_name(written, capsys):
    (written / "a@b").mkdir()
    (written / "sound_lift.py").rename(written / "a@b" / "sound_lift.py")
    assert main(["check", "env", f"{written}/a@b/sound_lift.py:Lift", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("Lift: clean")


def test_a_module_is_found_from_where_one_stands(written, capsys, monkeypatch):
    monkeypatch.chdir(written)
    assert main(["check", "env", "sound_lift:Lift", "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clean"]
    assert {check["level"] for check in found["checks"]} == {"ok"}
    assert main(["check", "env", "sound_lift:Lift", "--steps", "10", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [check["check"] for check in found["checks"] if check["level"] == "finding"] == ["end"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two_rotes", "did you mean 'two_routes'?"),
        ("nowhere.py:Lift", "no such file"),
        ("a_module_that_is_nowhere:Lift", "ModuleNotFoundError"),
        ("faulty.py:Lift", "a_module_that_is_nowhere"),
        ("script.py:Lift", "SystemExit: 3 (script.py:2): correct"),
        ("sound_lift.py:Lfit", "Lift"),
        ("sound_lift.py:Sized", "size, colour"),
        ("sound_lift.py", "name both sides of the colon"),
        (":Lift", "name both sides of the colon"),
        ("sound_lift.py:", "name both sides of the colon"),
        ("two_routes@nowhere:32", "two_routes"),
    ],
)
def test_what_cannot_be_checked_is_one_line_and_exit_2(name, said, written, capsys, monkeypatch):
    monkeypatch.chdir(written)
    assert main(["check", "env", name]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("env", "two_routes", "--seeds", "1"), ("env", "two_routes", "--steps", "0")])
def test_numbers_out_of_range_are_told_by_their_flag(words, capsys):
    assert main(["check", *words]) == 2
    assert words[2] in capsys.readouterr().err


def test_a_run_is_checked(tmp_path, capsys):
    config, scales = RegressionConfig(spec=SPEC, net=NET), normalizer(episodes())
    weights = build(config).state_dict()

    def written(folder):
        tensors = {"model": weights, "ema": weights, "optim": {}, "rng-rank0": {}, "normalizer": scales.state()}
        save(folder, Checkpoint(1, Deployed("two_routes", config, SCHEMA), tensors, {"elapsed_s": 0.0}))
        return str(folder)

    assert main(["check", "policy", written(tmp_path / "good"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [check["check"] for check in found["checks"]] == [check.name for check in CHECKS]
    weights = {name: x * 10 if x.is_floating_point() else x for name, x in weights.items()}
    assert main(["check", "policy", written(tmp_path / "bad")]) == 1
    assert "finding  range" in capsys.readouterr().out
    assert main(["check", "policy", str(tmp_path / "nowhere")]) == 2
    assert torch.get_num_threads() == 1


def test_the_page_shows_what_the_checker_says(capsys):
    page = (Path(__file__).parents[2] / "docs" / "checker.md").read_text()
    code, said = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0] for language in ("python", "text"))
    exec(compile(code, "checker.md", "exec"), {})
    assert capsys.readouterr().out == said


def test_the_page_names_every_check():
    page = (Path(__file__).parents[2] / "docs" / "checker.md").read_text()
    rows = " ".join(re.findall(r"^\| ([\w ,]+) \|", page, re.MULTILINE))
    names = [check.name for check in (*ENV_CHECKS, *CHECKS)]
    assert [name for name in names if name not in rows and name.removeprefix("action ") not in rows] == []
