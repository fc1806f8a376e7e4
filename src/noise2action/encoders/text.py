"""Sentences to vectors: hashed n-grams that need nothing, or a sentence-embedding model of the ecosystem."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..errors import ConfigError, MissingExtraError, SchemaError, ShapeError
from ..schema import UNKNOWN, Feature, words
from .part import Encoded, Observations, Part


@dataclass(frozen=True)
class HashedNGramsConfig:
    """Built-in embedding: signed hashes of words, word pairs and parts of words. Deterministic, needs no files.

    Each n-gram adds +-weight to the one of `width` places that its hash names, so that sentences that share words, or
    parts of them, are close. Words never seen before still share their parts.

    **Source:** Weinberger et al. 2009, "Feature hashing"; parts of words as Bojanowski et al. 2017.
    """

    width: int = 256
    """Places, the width of an embedding."""
    words: int = 2
    """Longest run of words that counts as one."""
    letters: tuple[int, int] = (3, 5)
    """Shortest and longest part of a word in letters, its ends marked."""
    letters_weight: float = 1.0
    """How much all parts of a word weigh together (root of the sum of squares); a word weighs 1."""

    def __post_init__(self) -> None:
        """Reject sizes without n-grams."""
        low, high = self.letters
        if not (1 <= self.width <= 65_536 and 1 <= self.words <= 1024 and 1 <= low <= high <= 1024):
            raise ConfigError(
                "expected width in [1, 65536], words in [1, 1024] and letters (low, high) with "
                f"1 <= low <= high <= 1024, got {self.width}, {self.words} and {self.letters}"
            )
        if not (math.isfinite(self.letters_weight) and self.letters_weight >= 0):
            raise ConfigError(f"expected letters_weight >= 0, got {self.letters_weight}")

    def embed(self, sentences: Sequence[str]) -> Float[Tensor, "K E"]:
        """Return one embedding a sentence, of length 1; of a sentence without letters or digits it is 0."""
        table = torch.zeros(len(sentences), self.width, dtype=torch.float64)
        for row, sentence in zip(table, sentences, strict=True):
            for ngram, weight in self.ngrams(sentence):
                number = stable_hash(ngram)
                row[number % self.width] += weight if number >> 63 else -weight
        return nn.functional.normalize(table, dim=1).float()

    def ngrams(self, sentence: str) -> Iterator[tuple[str, float]]:
        """Yield the n-grams of a sentence with their weights, however it is capitalised, spaced and punctuated."""
        spoken = words(sentence)
        for count in range(1, self.words + 1):
            for start in range(len(spoken) - count + 1):
                yield " ".join(spoken[start : start + count]), 1.0
        for word in spoken:
            marked = f"<{word}>"
            low, high = self.letters
            parts = [marked[i : i + n] for n in range(low, high + 1) for i in range(len(marked) - n + 1)]
            for part in parts:
                # Words and their parts do not meet: the word "<go" does not exist.
                yield part, self.letters_weight / math.sqrt(len(parts))


@dataclass(frozen=True)
class SentenceModelConfig:
    """Sentence-embedding model of sentence-transformers, from a local folder or its cache; nothing is downloaded."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Folder of a model, or the name of one that was downloaded before."""
    width: int = 384
    """Width of its embeddings."""

    def __post_init__(self) -> None:
        """Reject an empty name and width."""
        if not self.model or not 1 <= self.width <= 65_536:
            raise ConfigError(f"expected a model and a width in [1, 65536], got {self.model!r} and {self.width}")

    def embed(self, sentences: Sequence[str]) -> Float[Tensor, "K E"]:
        """Return one embedding a sentence, of length 1.

        Raises `MissingExtraError` without the library, `ConfigError` where the model is not on this computer or has
        another width.
        """
        try:
            import sentence_transformers  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", "text") from error
        # A folder that is not there would be taken for a name on the hub.
        name = str(Path(self.model).resolve()) if Path(self.model).exists() else self.model
        try:
            model: Any = sentence_transformers.SentenceTransformer(
                name, device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"expected a sentence model on this computer, got none for {self.model!r}: give a local folder with "
                "safetensors weights, download it first, or use hashed_ngrams"
            ) from error
        found = torch.as_tensor(model.encode(list(sentences), normalize_embeddings=True, show_progress_bar=False))
        if found.shape != (len(sentences), self.width):
            raise ConfigError(f"{self.model}: expected embeddings of width {self.width}, got {tuple(found.shape)}")
        return found.float()


AnyTextConfig = HashedNGramsConfig | SentenceModelConfig
"""Every text embedding that can be chosen by name."""


def stable_hash(text: str) -> int:
    """Return the 64-bit hash of `text`, the same on every computer (Python's own differs from process to process)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class TextPart(Part):
    """A sentence: `out(sqrt(E) embedding)`, so that the layer's E inputs have the scale of other features.

    The embeddings of a feature's sentences are held like weights, so that a checkpoint says what it was trained with
    and needs no model to be used.
    """

    def __init__(self, feature: Feature, config: AnyTextConfig, *, dim: int, obs_steps: int) -> None:
        super().__init__(feature.name, (feature,), obs_steps=obs_steps)
        self.once, self.dim, self.cell_dim, self.cells = True, dim, dim, 1
        self.config = config
        self.table = nn.Buffer(torch.full((len(feature.sentences), config.width), math.nan))
        if isinstance(config, HashedNGramsConfig):
            self.fill()
        self.out = nn.Linear(config.width, dim)
        # From zero only what the sentences of the training hold gets weights: words never heard say nothing.
        nn.init.zeros_(self.out.weight)

    def fill(self) -> None:
        """Compute the embeddings of the feature's sentences."""
        self.table.copy_(self.config.embed(self.features[0].sentences))

    def check(self, observations: Observations) -> None:
        """Raise an error unless given positions of sentences or `UNKNOWN` [B, O, 1], or embeddings of any [B, O, E]."""
        x, name, (known, width) = observations[self.name], self.name, self.table.shape
        size = width if x.is_floating_point() else 1
        if x.dtype == torch.bool or tuple(x.shape[1:]) != (self.obs_steps, size):
            raise ShapeError(
                f"text {name!r}: expected positions of sentences [B, {self.obs_steps}, 1] or embeddings "
                f"[B, {self.obs_steps}, {width}], got {x.dtype} {tuple(x.shape)}"
            )
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise SchemaError(f"text {name!r}: expected a finite embedding, got NaN or infinity")
        if x.is_floating_point() or not x.numel():
            return
        if not (int(x.min()) >= UNKNOWN and int(x.max()) < known):
            raise SchemaError(
                f"text {name!r}: expected positions of its {known} sentences, got {int(x.min())}..{int(x.max())}: "
                "give the embedding of any other sentence"
            )
        if bool(self.table.isnan().any()):
            raise ConfigError(
                f"text {name!r}: expected the embeddings of its sentences, got none: prepare() the encoder first"
            )

    def forward(self, observations: Observations, visions: nn.ModuleList, generator: torch.Generator | None) -> Encoded:
        """Return the newest sentence; an unknown one, like one without words, is the embedding 0."""
        self.check(observations)
        newest = observations[self.name][:, -1]
        embedding = newest if newest.is_floating_point() else self._known(newest.long())
        scaled = math.sqrt(self.config.width) * embedding
        vector = self.out(scaled.to(self.out.weight.dtype)).unsqueeze(1)
        return Encoded(vector, vector)

    def _known(self, position: Int64[Tensor, "B 1"]) -> Float[Tensor, "B E"]:
        return torch.where(position == UNKNOWN, 0.0, self.table[position[:, 0].clamp(min=0)])
