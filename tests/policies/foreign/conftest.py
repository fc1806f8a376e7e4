"""Both sides' ResNets with fewer channels: its layout is what is compared, and one test has all of them."""

from dataclasses import replace
from functools import partial

import lerobot_written
import pytest

from noise2action.encoders.resnet import resnet18, resnet34
from noise2action.policies.foreign import lerobot, stanford

WIDTHS = (16, 16, 32, 48)


def narrow(*, norm="group", make=resnet18):
    return replace(make(norm=norm), widths=WIDTHS)


@pytest.fixture(autouse=True)
def narrow_resnets(monkeypatch) -> None:
    monkeypatch.setattr(lerobot_written, "WIDTHS", WIDTHS)
    monkeypatch.setitem(lerobot.BACKBONES, "resnet18", narrow)
    monkeypatch.setitem(lerobot.BACKBONES, "resnet34", partial(narrow, make=resnet34))
    monkeypatch.setattr(stanford, "resnet18", narrow)
