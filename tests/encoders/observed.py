"""Features of every kind, small encoders of them, and what they may observe."""

import torch

from noise2action.encoders.fuse import EncoderConfig
from noise2action.encoders.pooling import AveragePoolConfig
from noise2action.encoders.resnet import ResNetConfig
from noise2action.encoders.text import HashedNGramsConfig, TextPart
from noise2action.schema import Feature
from noise2action.seeds import generator

STATE = (Feature("p", (2,)), Feature("a", (1,), kind="angle"))
LEFT = Feature("left", (16, 12, 3), kind="image", dtype="uint8")
RIGHT = Feature("right", (16, 12, 3), kind="image", dtype="uint8")
SMALL = Feature("small", (3, 8, 8), kind="image", dtype="uint8")
AIM = Feature("aim", (2,), low=-1.0, high=1.0, goal=True)
LOOK = Feature("look", (16, 12, 3), kind="image", dtype="uint8", goal=True)
SAID = Feature("said", (1,), kind="text", dtype="int64", sentences=("go left", "go right"))
ALL = (AIM, LEFT, STATE[0], SAID, SMALL, STATE[1], LOOK)
TINY = ResNetConfig(widths=(16,), blocks=(1,), strides=(1,), pool=AveragePoolConfig(), dim=6, activation="none")
TEXT = HashedNGramsConfig(width=16)
O = 2  # noqa: E741 - the axis legend's name


def config(**options):
    return EncoderConfig(**{"vision": TINY, "text": TEXT, "text_dim": 3, **options})


def built(features=ALL, **options):
    torch.manual_seed(0)
    encoder = config(**options).build(features, O).eval()
    for slot in encoder.slots:
        if isinstance(slot.part, TextPart):
            # As after training: fresh ones say nothing.
            torch.nn.init.normal_(slot.part.out.weight)
    return encoder


def seen(features=ALL, batch=3, seed=0):
    g = generator(seed, "observations")
    found = {}
    for f in features:
        if f.kind == "image":
            found[f.name] = torch.randint(0, 256, (batch, O, *f.shape), dtype=torch.uint8, generator=g)
        elif f.kind == "text":
            found[f.name] = torch.randint(0, 2, (batch, O, 1), generator=g)
        else:
            found[f.name] = 2 * torch.rand(batch, O, *f.shape, generator=g) - 1
    return found


def pixels(x, feature):
    """What a vision network is given: images of all steps, channels first, from -1 to 1."""
    x = x.flatten(0, 1)
    return (x if feature.channels_first else x.permute(0, 3, 1, 2)).float() / 127.5 - 1
