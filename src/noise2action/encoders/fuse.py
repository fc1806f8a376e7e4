"""The observation encoder: whatever a schema observes, encoded once a plan, as one condition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..condition import Condition
from ..config import members
from ..errors import ConfigError, SchemaError, ShapeError, did_you_mean
from ..schema import Feature
from .goal import GoalStatePart
from .image import AnyCrop, AnyVisionConfig, Camera, CameraPart, CropEach, ImageTokens, Vision, check_colours
from .part import Observations, Part, Slot
from .pretrained import load_torchvision
from .resnet import ResNet, ResNetConfig
from .state import STATE, StateEncoder, StatePart
from .text import AnyTextConfig, TextPart

Absent = Mapping[str, Bool[Tensor, "B"]]
"""By modality: True for the samples that it is hidden from."""


@dataclass(frozen=True)
class EncoderConfig:
    """Observation encoder; what a schema does not observe takes no weights."""

    vision: AnyVisionConfig = field(default_factory=ResNetConfig)
    """Network that images go through."""
    cameras: Literal["separate", "shared"] = "separate"
    """Whether every camera has a network of its own."""
    goal_images: Literal["shared", "own"] = "shared"
    """Whether goal images go through the first camera's network."""
    crop: AnyCrop | None = None
    """Part of every image that is seen: at a random place while training, the centre otherwise; null for all of it."""
    colour_jitter: float = 0.0
    """Largest relative change, while training, of brightness, contrast and saturation; 0.2 is mild."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from red, green and blue in 0..1; ImageNet weights expect 0.485, 0.456, 0.406."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Red, green and blue are then divided by it; ImageNet weights expect 0.229, 0.224, 0.225."""
    image_tokens: ImageTokens = "pooled"
    """What a token of an image is: all of it, or one of its places."""
    text: AnyTextConfig | None = None
    """Embedding of sentences; null where nothing is said."""
    text_dim: int = 32
    """Width of a sentence's part of the vector."""
    proprioception: tuple[int, ...] = ()
    """Widths of an MLP over each step's state; empty for the state as it is."""
    token_dim: int | None = None
    """Width of the tokens, for networks that attend; null for none, or for a state alone: a token a step, as it is."""
    modality_dropout: float = 0.0
    """Share of training samples that each modality is hidden from, independently; above 0 it may be absent."""
    droppable: tuple[str, ...] = ()
    """Modalities that this concerns: features by name, `state` for all states together; empty for all."""

    def __post_init__(self) -> None:
        """Reject sizes and shares out of range."""
        check_colours(self.mean, self.std)
        sizes = (self.text_dim, *self.proprioception, 1 if self.token_dim is None else self.token_dim)
        if min(sizes) < 1 or max(sizes) > 65_536:
            raise ConfigError(
                "expected text_dim, token_dim and widths of proprioception in [1, 65536], got "
                f"{self.text_dim}, {self.token_dim} and {self.proprioception}"
            )
        if self.image_tokens == "cells" and self.token_dim is None:
            raise ConfigError(
                "expected token_dim with image_tokens=cells, got null: give the tokens a width, or use pooled"
            )
        if not (0 <= self.modality_dropout < 1 and 0 <= self.colour_jitter < 1):
            raise ConfigError(
                "expected modality_dropout and colour_jitter in [0, 1), got "
                f"{self.modality_dropout} and {self.colour_jitter}"
            )
        if self.droppable and not self.modality_dropout:
            raise ConfigError(f"expected modality_dropout > 0 to hide {self.droppable}, got 0")

    def build(self, features: tuple[Feature, ...], obs_steps: int) -> "ObservationEncoder":
        """Return the encoder of `obs_steps` steps of `features`, with fresh weights (from the global generator)."""
        return ObservationEncoder(self, features, obs_steps=obs_steps)


class ObservationEncoder(nn.Module):
    """Observation history to a condition.

    The vector is: for every observed step, oldest first, the state (where its first feature stands in the schema) and
    the cameras in the schema's order; then, once, goals and texts in the schema's order.
    """

    def __init__(self, config: EncoderConfig, features: tuple[Feature, ...], *, obs_steps: int) -> None:
        super().__init__()
        self.config, self.features, self.obs_steps = config, features, obs_steps
        self.visions = nn.ModuleList()
        parts = self._parts()
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise SchemaError(f"expected no image, goal or text that is called {STATE!r} beside states, got {names}")
        for name in config.droppable:
            if name not in names:
                raise ConfigError(f"expected a modality that may be dropped, got {name!r}: {did_you_mean(name, names)}")
        images = [feature.name for feature in features if feature.kind == "image"]
        for name in config.crop.sizes if isinstance(config.crop, CropEach) else ():
            if name not in images:
                raise ConfigError(f"expected an image to crop, got {name!r}: {did_you_mean(name, images)}")
        self.modalities = tuple(names)
        self.droppable = (config.droppable or self.modalities) if config.modality_dropout else ()
        self.slots = nn.ModuleList(
            Slot(part, token_dim=config.token_dim, may_be_absent=part.name in self.droppable) for part in parts
        )
        # Which modality every column of the vector and every token belongs to.
        owners = [torch.full((1, part.steps, part.dim), n) for n, part in enumerate(parts)]
        cells = [(n, i) for n, part in enumerate(parts) for i in range(part.cells)]
        self.column_owners = nn.Buffer(self._joined(owners)[0], persistent=False)
        self.token_owners = nn.Buffer(torch.tensor([n for n, _ in cells]), persistent=False)
        self.token_first = nn.Buffer(torch.tensor([i == 0 for _, i in cells]), persistent=False)

    @property
    def dim(self) -> int:
        """D, the width of the condition vector."""
        return sum(part.steps * part.dim for part in self._all())

    @property
    def token_dim(self) -> int | None:
        """E, the width of a token; None where there are none."""
        plain = self._plain()
        return self.config.token_dim if plain is None else plain.token_dim

    def prepare(self) -> None:
        """Read what a fresh encoder is told to learn from: ImageNet weights, embeddings of the schema's sentences.

        Once before training. A policy read from a checkpoint has them: then neither file nor model need exist.
        """
        for vision in self.visions:
            if isinstance(vision, ResNet) and vision.config.weights is not None:
                load_torchvision(vision, Path(vision.config.weights))
        for part in self._all():
            if isinstance(part, TextPart):
                part.fill()

    def embed(self, sentences: Sequence[str]) -> Float[Tensor, "K E"]:
        """Return the embeddings of any sentences, to be given instead of their positions."""
        if self.config.text is None:
            raise SchemaError(f"expected an encoder of texts to embed {list(sentences)}, got text=null: choose one")
        return self.config.text.embed(sentences)

    def example(self) -> dict[str, Tensor]:
        """Return a legal history, batch 1, in robot units: black images, empty embeddings, numbers nearest to 0."""
        return {feature.name: self._example(feature) for feature in self.features}

    def _example(self, feature: Feature) -> Tensor:
        if feature.kind == "image":
            return torch.zeros(1, self.obs_steps, *feature.shape, dtype=torch.uint8)
        if feature.kind == "text":  # an embedding: there may be no sentences to choose from
            assert self.config.text is not None, "an encoder without one refuses texts"
            return torch.zeros(1, self.obs_steps, self.config.text.width)
        low, high = (torch.as_tensor(end, dtype=torch.float32) for end in feature.bounds)
        return torch.zeros(1, self.obs_steps, *feature.shape).clamp(low, high)

    def check(self, history: Observations) -> None:
        """Raise `SchemaError` or `ShapeError` unless `history`, in robot units, is what was declared.

        Concerns cameras, texts, goals (their ranges too) and states; what may be absent may be missing.
        """
        self._check_there(history)
        given = {f.name: history[f.name] for f in self.features if f.name in history}
        for name, x in given.items():
            if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SchemaError(
                    f"observation {name!r}: expected a tensor [B, {self.obs_steps}, ...], got {type(x).__name__}: "
                    "use torch.as_tensor"
                )
        for part in self._all():
            if _has(history, part):
                part.check(history)
        batches = {name: len(x) for name, x in given.items()}
        if len(set(batches.values())) > 1:
            raise ShapeError(f"expected observations of one batch size, got {batches}: one row a sample in each")

    def forward(
        self, observations: Observations, *, absent: Absent | None = None, generator: torch.Generator | None = None
    ) -> Condition:
        """Return the condition of `observations`, name -> [B, O, ...]: states and goals normalised, the rest as it is.

        A modality that was trained with dropout may be missing, or `absent` from some samples: its learned null stands
        for it, and nothing else does. While training, the generator draws crops and what is hidden.
        """
        config = self.config
        if self.training and generator is None and (config.crop is not None or config.colour_jitter or self.droppable):
            raise ConfigError(
                "expected a generator to train with crops, jitter or dropout, got none: pass one, or call eval()"
            )
        self._check_there(observations)
        draw = generator if self.training else None
        return self.hide(self._encoded(observations, draw), self._absent(observations, absent or {}, draw))

    def hide(self, condition: Condition, absent: Absent) -> Condition:
        """Return `condition` with its learned nulls where modalities are `absent`; nothing is encoded again.

        What is hidden has no influence: its columns and its first token are its null, its other tokens are masked.
        """
        if not absent:
            return condition
        for name in absent:
            if name not in self.droppable:
                raise SchemaError(
                    f"expected a modality that may be absent, got {name!r}: {did_you_mean(name, self.droppable)}; "
                    "train with modality_dropout > 0"
                )
        vector, tokens = condition.vector, condition.tokens
        nothing = torch.zeros(len(vector), dtype=torch.bool, device=vector.device)
        gone = torch.stack([absent.get(name, nothing).to(vector.device) for name in self.modalities], dim=1)
        nulls, null_tokens = zip(*(slot.nulls() for slot in self._slots()), strict=True)
        null = self._joined([x.to(vector) for x in nulls])
        vector = torch.where(gone[:, self.column_owners], null, vector)
        if tokens is None:
            return Condition(vector)
        hidden = gone[:, self.token_owners]
        tokens = torch.where(hidden[..., None], torch.cat([x.to(tokens) for x in null_tokens], dim=1), tokens)
        there = ~hidden | self.token_first
        return Condition(vector, tokens, there if condition.mask is None else there & condition.mask)

    @torch.no_grad()
    def attention(self, observations: Observations) -> dict[str, Float[Tensor, "B _ _ _ _"]]:
        """Return, by camera and goal image, where each keypoint looks in every step; for spatial softmax only."""
        cameras = [part for part in self._all() if isinstance(part, CameraPart) and _has(observations, part)]
        found = {part.name: part.attention(observations, self.visions) for part in cameras}
        return {name: weights for name, weights in found.items() if weights is not None}

    def _slots(self) -> list[Slot]:
        return [slot for slot in self.slots if isinstance(slot, Slot)]

    def _all(self) -> list[Part]:
        return [slot.part for slot in self._slots()]

    def _plain(self) -> StateEncoder | None:
        """Return the encoder of a state alone, which has no weights; None where there is more to encode."""
        parts = self._all()
        if len(parts) != 1 or self.config.token_dim is not None or self.droppable:
            return None
        return parts[0].state if isinstance(parts[0], StatePart) and not len(parts[0].mlp) else None

    def _parts(self) -> list[Part]:
        """Return one part a modality: those of every step, then those that count once."""
        config, steps = self.config, self.obs_steps
        states = tuple(f for f in self.features if f.is_state and not f.goal)
        networks: dict[str, tuple[int, int]] = {}
        parts: list[Part] = []
        # Goals last: a goal image may go through the network of a camera.
        for feature in sorted(self.features, key=lambda f: f.goal):
            if feature in states:
                if feature == states[0]:
                    parts.append(StatePart(states, layers=config.proprioception, obs_steps=steps))
            elif feature.is_state:
                parts.append(GoalStatePart(feature, obs_steps=steps))
            elif feature.kind == "image":
                parts.append(self._camera(feature, networks))
            elif config.text is None:
                known = did_you_mean("", members(AnyTextConfig))
                raise SchemaError(f"expected an encoder for the text {feature.name!r}, got text=null: {known}")
            else:
                parts.append(TextPart(feature, config.text, dim=config.text_dim, obs_steps=steps))
        place = {feature.name: n for n, feature in enumerate(self.features)}
        return sorted(parts, key=lambda part: (part.once, place[part.features[0].name]))

    def _camera(self, feature: Feature, networks: dict[str, tuple[int, int]]) -> CameraPart:
        """Return the part of an image; `networks` holds, by user, the image size of each network that there is."""
        config = self.config
        camera = Camera(feature, crop=config.crop, mean=config.mean, std=config.std, jitter=config.colour_jitter)
        user = feature.name if config.cameras == "separate" else "cameras"
        if feature.goal:
            user = "goals" if config.goal_images == "own" else next(iter(networks), "goals")
        if user in networks:
            config.vision.check_shared(networks[user], camera.size)
        else:
            networks[user] = camera.size
            self.visions.append(config.vision.build(size=camera.size))
        position = list(networks).index(user)
        vision = self.visions[position]
        assert isinstance(vision, Vision)
        return CameraPart(camera, vision, position=position, obs_steps=self.obs_steps, tokens=config.image_tokens)

    def _check_there(self, observations: Observations) -> None:
        """Raise `SchemaError` that names a modality that is missing and may not be."""
        for part in self._all():
            if not _has(observations, part) and part.name not in self.droppable:
                kind = "a camera" if isinstance(part, CameraPart) else "an observation"
                raise SchemaError(
                    f"expected {kind} {part.features[0].name!r}, got {sorted(observations)}: it may be absent "
                    "only where the encoder was trained with modality_dropout > 0"
                )
        if not any(_has(observations, part) for part in self._all()):
            raise SchemaError(f"expected one of {list(self.modalities)} at least, got {sorted(observations)}")

    def _encoded(self, observations: Observations, generator: torch.Generator | None) -> Condition:
        """Return the condition before anything is hidden; nulls stand for what is missing."""
        plain = self._plain()
        if plain is not None:
            return plain(observations)
        batch = len(self._any(observations))
        encoded = [slot(observations, visions=self.visions, generator=generator) for slot in self._slots()]
        vectors, tokens = (
            [x.expand(batch, *x.shape[1:]) for x in part if x is not None] for part in zip(*encoded, strict=True)
        )
        return Condition(self._joined(vectors), torch.cat(tokens, dim=1) if tokens else None)

    def _absent(self, observations: Observations, absent: Absent, generator: torch.Generator | None) -> Absent:
        """Return `absent` with every modality that may be: from which samples it is missing, hidden or dropped."""
        like = self._any(observations)
        gone = dict(absent)
        for part in (p for p in self._all() if p.name in self.droppable):
            there = torch.full((len(like),), _has(observations, part), dtype=torch.bool, device=like.device)
            if part.name in absent:
                there = there & ~absent[part.name].to(like.device)
            if generator is not None:
                drawn = torch.rand(len(like), generator=generator, device=generator.device)
                there = there & (drawn >= self.config.modality_dropout).to(like.device)
            gone[part.name] = ~there
        return gone

    def _any(self, observations: Observations) -> Tensor:
        """Return one of the observations."""
        return next(observations[f.name] for f in self.features if f.name in observations)

    def _joined(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the vector [B, D] made of the modalities' [B, S, D_i]."""
        parts = self._all()
        steps = [x for x, part in zip(vectors, parts, strict=True) if not part.once]
        once = [x.flatten(1) for x, part in zip(vectors, parts, strict=True) if part.once]
        return torch.cat([*([torch.cat(steps, dim=2).flatten(1)] if steps else []), *once], dim=1)


def _has(observations: Observations, part: Part) -> bool:
    """Return whether any of the part's features is there."""
    return any(f.name in observations for f in part.features)
