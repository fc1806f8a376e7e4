"""An imported checkpoint of the original code acts as the policy of that layout, written out, does."""

from functools import partial

import pytest
import torch
from stanford_written import observed, of_hybrid, of_images, of_states

from noise2action.policies.checkpoint import build
from noise2action.policies.foreign import stanford
from noise2action.policies.foreign.layout import checkpoint_of, own_names

close = torch.testing.assert_close


def imported(path):
    foreign = stanford.read(path)
    return checkpoint_of(foreign, own_names(foreign), task="stanford", control_hz=10.0)


@pytest.mark.parametrize(
    ("make", "use_ema"),
    [
        (of_states, True),
        (of_states, False),
        (of_hybrid, True),
        (of_images, True),
        (partial(of_images, ("a_image", "position", "b_image"), shared=True), True),
    ],
    ids=["states", "states, not averaged", "hybrid", "images", "images, shared"],
)
def test_the_same_actions(make, use_ema, tmp_path) -> None:
    written = make()
    checkpoint = imported(written.save(tmp_path / "a.ckpt", use_ema=use_ema))
    assert checkpoint.state["origin"]["weights"] == ("ema_model" if use_ema else "model")
    ours, history = build(checkpoint), observed(written)
    executed, chunk = written.act(history, torch.Generator().manual_seed(3))
    named = {"obs" if name == "observation.state" else name: x for name, x in history.items()}
    planned = ours.plan(named, generator=torch.Generator().manual_seed(3))
    close(planned / 100, chunk / 100, rtol=1e-5, atol=1e-5)
    close(planned[:, 1:5] / 100, executed / 100, rtol=1e-5, atol=1e-5)
    assert chunk.std() > 1
