import hashlib
import math
import subprocess
import sys
import types

import pytest
import torch

from noise2action.encoders.text import HashedNGramsConfig, SentenceModelConfig, TextPart, stable_hash
from noise2action.errors import ConfigError, MissingExtraError, SchemaError, ShapeError
from noise2action.schema import UNKNOWN, Feature

close = torch.testing.assert_close
SAID = Feature("said", (1,), kind="text", dtype="int64", sentences=("go left", "go right", "either way"))


def similarity(one, other, config=None):
    a, b = (config or HashedNGramsConfig()).embed([one, other])
    return float(a @ b)


def test_it_is_the_formula_written_out():
    """Signed counts of words, pairs and parts of words at the places that BLAKE2b names, scaled to length 1."""
    want = torch.zeros(16, dtype=torch.float64)

    def add(ngram, weight):
        number = int.from_bytes(hashlib.blake2b(ngram.encode(), digest_size=8).digest(), "little")
        want[number % 16] += weight * (1 if number >= 2**63 else -1)

    for ngram in ("go", "left", "go left"):
        add(ngram, 1)
    for part in ("<go", "go>", "<go>"):
        add(part, 0.8 / 3**0.5)
    left = ["<le", "lef", "eft", "ft>", "<lef", "left", "eft>"]
    for part in left:
        add(part, 0.8 / 7**0.5)
    config = HashedNGramsConfig(width=16, letters=(3, 4), letters_weight=0.8)
    close(config.embed(["Go  LEFT!"])[0], (want / want.norm()).float())


def test_another_process_hashes_the_same():
    code = (
        "from noise2action.encoders.text import HashedNGramsConfig as C, stable_hash;"
        "print(stable_hash('go'), C().embed(['go left']).numpy().tobytes().hex())"
    )
    environment = {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    number, body = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert int(number) == stable_hash("go")
    assert body == HashedNGramsConfig().embed(["go left"]).numpy().tobytes().hex()


@pytest.mark.parametrize(
    ("sentence", "near", "far"),
    [
        ("go left", "please go left", "go right"),
        ("go left", "left", "right"),
        ("grasp gently", "gently grasp it", "grasp firmly"),
        ("grasp gently", "grasping gentle", "open the drawer"),
        ("turn leftwards", "turn left", "turn right"),
    ],
)
def test_sentences_that_share_words_or_parts_are_closer(sentence, near, far):
    assert similarity(sentence, near) > similarity(sentence, far) + 0.05


def test_capitals_spaces_and_punctuation_do_not_matter_but_order_does():
    assert torch.equal(*HashedNGramsConfig().embed(["Go left.", "go   LEFT"]))
    assert similarity("go left then right", "go right then left") < 0.99


def test_unknown_words_and_no_words_are_embedded():
    sentences = ["xyzzy qwrtp", "éclair 日本", "?!", ""]
    lengths = HashedNGramsConfig().embed(sentences).norm(dim=1)
    close(lengths, torch.tensor([1.0, 1, 0, 0]))


def test_different_words_are_nearly_orthogonal():
    words = HashedNGramsConfig(width=1024).embed([f"{a}{b}{a}{b}{b}" for a in "aeiou" for b in "bcdfgklm"])
    gram = words @ words.T - torch.eye(len(words))
    assert gram.abs().mean() < 3 / math.sqrt(1024)


@pytest.mark.parametrize("options", [{"width": 0}, {"words": 0}, {"letters": (4, 3)}, {"letters_weight": -1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        HashedNGramsConfig(**options)


def part(config=None, steps=2):
    return TextPart(SAID, config or HashedNGramsConfig(width=16), dim=4, obs_steps=steps)


def vector(text, x):
    return text({"said": x}, torch.nn.ModuleList(), None).vector[:, 0]


def test_a_position_means_its_sentence_and_the_newest_step_counts():
    text = part()
    torch.nn.init.normal_(text.out.weight)
    x = torch.tensor([[[0], [2]], [[1], [0]]])
    embeddings = HashedNGramsConfig(width=16).embed(["either way", "go left"])
    close(vector(text, x), 4 * embeddings @ text.out.weight.T + text.out.bias)
    close(vector(text, embeddings[:, None].expand(-1, 2, -1)), vector(text, x))


def test_words_that_no_training_held_say_nothing():
    text = TextPart(SAID, HashedNGramsConfig(width=4096), dim=3, obs_steps=1)
    optimizer = torch.optim.Adam(text.out.parameters(), lr=0.1)
    told = torch.tensor([[[0]], [[1]], [[2]]])
    want = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for _ in range(200):
        optimizer.zero_grad()
        (text({"said": told}, torch.nn.ModuleList(), None).vector[:, 0] - want).square().sum().backward()
        optimizer.step()

    def vector(sentence):
        embedding = text.config.embed([sentence])[None]
        return text({"said": embedding}, torch.nn.ModuleList(), None).vector[0, 0].detach()

    close(vector("go left"), want[0], atol=0.01, rtol=0)
    # These share no place with what was told, those share some.
    assert torch.equal(vector("fly to that moon"), text.out.bias.detach())
    assert float((vector("turn left, please") - text.out.bias.detach()) @ (want[0] - want[1])) > 0.2


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.tensor([[[3]]]), SchemaError, r"positions of its 3 sentences, got 3\.\.3"),
        (torch.tensor([[[-2]]]), SchemaError, r"got -2\.\.-2"),
        (torch.tensor([[0]]), ShapeError, "expected positions"),
        (torch.tensor([[[0], [0]]]), ShapeError, "expected positions"),
        (torch.zeros(1, 1, 8), ShapeError, r"embeddings \[B, 1, 16\], got torch.float32 \(1, 1, 8\)"),
        (torch.tensor([[[True]]]), ShapeError, "expected positions"),
    ],
)
def test_other_inputs_are_refused(x, error, message):
    with pytest.raises(error, match=f"'said': .*{message}"):
        vector(part(steps=1), x)


def test_an_unknown_sentence_is_one_without_words():
    text = part(steps=1)
    torch.nn.init.normal_(text.out.weight)
    unknown = vector(text, torch.tensor([[[UNKNOWN]]]))
    close(unknown, vector(text, text.config.embed(["?!"])[:, None]))
    assert not torch.allclose(unknown, vector(text, torch.tensor([[[0]]])))


@pytest.fixture
def library(monkeypatch):
    """A stand-in for sentence-transformers that knows one model and counts its calls."""
    calls: list[list[str]] = []

    class SentenceTransformer:
        def __init__(self, name, *, device, local_files_only, model_kwargs):
            assert device == "cpu"
            assert local_files_only
            assert model_kwargs == {"use_safetensors": True}
            if name != "known":
                raise OSError("offline")

        def encode(self, sentences, *, normalize_embeddings, show_progress_bar):
            assert normalize_embeddings
            assert not show_progress_bar
            calls.append(sentences)
            return torch.tensor([[float(len(s)), 1.0] for s in sentences]).numpy()

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return calls


def test_a_model_is_asked_once_and_then_held_in_the_weights(library, monkeypatch):
    config = SentenceModelConfig(model="known", width=2)
    text = part(config)
    assert library == []
    with pytest.raises(ConfigError, match=r"'said': expected the embeddings of its sentences, got none: prepare"):
        vector(text, torch.zeros(1, 2, 1, dtype=torch.int64))
    text.fill()
    assert library == [["go left", "go right", "either way"]]
    assert text.table.tolist() == [[7, 1], [8, 1], [10, 1]]
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    other = part(config)
    other.load_state_dict(text.state_dict())
    x = torch.tensor([[[0], [1]]])
    assert torch.equal(vector(other, x), vector(text, x))


@pytest.mark.parametrize(
    ("name", "width", "message"), [("other", 2, "on this computer"), ("known", 3, "of width 3, got")]
)
def test_a_model_that_is_not_here_or_another_is_refused(library, name, width, message):
    with pytest.raises(ConfigError, match=message):
        SentenceModelConfig(model=name, width=width).embed(["go"])


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"noise2action\[text\]"):
        SentenceModelConfig().embed(["go"])
