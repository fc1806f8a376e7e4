"""A pickled checkpoint runs nothing: neither in the process nor in the one that reads it."""

import json
import os
import pickle
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from stanford_written import COMMON, of_images, of_states
from test_stanford_import import imported

from noise2action.cli import main
from noise2action.errors import CheckpointError, Noise2ActionError
from noise2action.policies.foreign import pickled, stanford
from noise2action.policies.foreign.unpickle import ALLOWED, Refused, Storage, array


@dataclass
class Calls:
    """Pickles as a call of any function with any arguments."""

    function: object
    arguments: tuple

    def __reduce__(self):
        return self.function, self.arguments


ATTACKS = {
    "posix.system": lambda mark: Calls(os.system, (f"touch {mark}",)),
    "__builtin__.eval": lambda mark: Calls(eval, (f"open({str(mark)!r}, 'w')",)),
    "__builtin__.exec": lambda mark: Calls(exec, (f"open({str(mark)!r}, 'w')",)),
    "__builtin__.getattr": lambda mark: Calls(getattr, ((), "__class__")),
    "torch.serialization.load": lambda mark: Calls(torch.load, (str(mark),)),
    "noise2action.cli.main": lambda mark: Calls(main, (["--version"],)),
}


@pytest.mark.parametrize(("name", "place"), [*((name, "cfg") for name in ATTACKS), ("posix.system", "beside")])
def test_a_payload_that_would_create_a_file_does_not(name, place, tmp_path) -> None:
    mark = tmp_path / "pwned"
    payload = of_states().payload()
    if place == "cfg":
        payload["cfg"]._content["policy"] = ATTACKS[name](mark)
    else:
        payload = {"beside": ATTACKS[name](mark), **payload}
    torch.save(payload, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=f"got {name}: it is not executed"):
        stanford.read(tmp_path / "a.ckpt")
    assert not mark.exists()
    if name == "posix.system":  # the attack is one: who unpickles the file runs it
        with suppress(Exception):
            torch.load(tmp_path / "a.ckpt", weights_only=False)
        assert mark.exists()


def test_names_are_resolved_exactly() -> None:
    """No attribute of an allowed module, and no dotted way through an allowed name, leads anywhere else."""
    modules = {module for module, _ in ALLOWED}
    assert not modules & {"os", "subprocess", "sys", "importlib", "io", "operator", "functools"}
    assert all(isinstance(found, str | type) or found.__module__.endswith("unpickle") for found in ALLOWED.values())


@pytest.mark.parametrize("name", ["_codecs.encode.__self__", "collections.OrderedDict.__init__.__globals__"])
def test_a_dotted_name_is_refused(name, tmp_path) -> None:
    module, _, rest = name.partition(".") if not name.startswith("collections") else ("collections", "", name[12:])
    body = (
        pickle.PROTO
        + b"\x04"
        + b"".join(pickle.SHORT_BINUNICODE + bytes([len(part)]) + part.encode() for part in (module, rest))
    )
    write(tmp_path / "a.ckpt", body + pickle.STACK_GLOBAL + pickle.STOP)
    with pytest.raises(CheckpointError, match="it is not executed"):
        pickled.unpickled(tmp_path / "a.ckpt")


def write(path, body, **storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        for key, numbers in storages.items():
            archive.writestr(f"archive/data/{key}", numbers)


def test_tensors_that_reach_beyond_their_storage_are_refused(tmp_path) -> None:
    """A view of more numbers than there are: by a stride of 0, an offset, a size; and a storage that is too short."""
    write(tmp_path / "a", b"", numbers=torch.arange(8).float().numpy().tobytes())

    def read(offset, size, stride, *, length=8):
        view = ALLOWED["torch._utils", "_rebuild_tensor_v2"](Storage("numbers", "<f4", length), offset, size, stride)
        with zipfile.ZipFile(tmp_path / "a") as archive:
            return torch.from_numpy(array(view, archive, "archive/"))

    assert read(1, (2, 3), (1, 2)).equal(torch.arange(8.0).as_strided((2, 3), (1, 2), 1))
    assert read(0, (), ()).equal(torch.tensor(0.0))
    assert read(8, (0,), (1,)).numel() == 0
    for wrong in ((0, (1 << 30,), (0,)), (6, (3,), (1,)), (0, (8, 8), (8, 1)), (8, (1,), (1,)), (0, (9,), (1,))):
        with pytest.raises(Refused, match="inside its storage of 8"):
            read(*wrong)
    for wrong in ((-1, (1,), (1,)), (0, (-1,), (1,)), (0, (2,), (-1,)), (0, (1.0,), (1,)), (0, [1], (1,))):
        with pytest.raises(Refused, match=r"expected (a size|sizes)"):
            read(*wrong)
    with pytest.raises(Refused, match="inside its storage of 8"):
        read(0, (2,), (1,), length=4)
    with pytest.raises(Refused, match="expected a tensor of a storage"):
        ALLOWED["torch._utils", "_rebuild_tensor_v2"](b"", 0, (1,), (1,))


def test_memory_is_in_proportion_to_the_file(tmp_path) -> None:
    laughs = b"N" + b"2\x86" * 40  # a pair of the pair of the pair ... of None
    write(tmp_path / "deep", b"\x80\x02}X\x03\x00\x00\x00cfg" + laughs + b"s.")
    with pytest.raises(CheckpointError, match="deeper or larger"):
        pickled.unpickled(tmp_path / "deep")
    huge = pickle.PROTO + b"\x04" + pickle.BINUNICODE8 + (1 << 40).to_bytes(8, "little") + b"x."
    write(tmp_path / "huge", huge)
    with pytest.raises(CheckpointError):
        pickled.unpickled(tmp_path / "huge")


def test_files_that_are_no_such_archive_are_refused(tmp_path) -> None:
    cases = {
        "text": b"hello",
        "plain pickle": pickle.dumps({"cfg": {}}),
    }
    for name, body in cases.items():
        (tmp_path / name).write_bytes(body)
        with pytest.raises(CheckpointError, match="expected an archive as"):
            pickled.unpickled(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "packed", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="not compressed"):
        pickled.unpickled(tmp_path / "packed")
    with pytest.raises(CheckpointError, match="got no such file"):
        pickled.unpickled(tmp_path / "nothing")


def test_the_reading_process_imports_no_torch() -> None:
    source = pickled.UNPICKLE.read_text()
    assert "import torch" not in source
    assert "from ." not in source
    assert "dill" not in sys.modules or not hasattr(sys.modules["dill"], "loads")


OPTIONS = {
    "local condition": ({"obs_as_local_cond": True}, "'obs_as_local_cond' to be false"),
    "inpainting": ({"obs_as_global_cond": False}, "'obs_as_global_cond' to be true"),
    "action steps only": ({"pred_action_steps_only": True}, "pred_action_steps_only"),
    "other alignment": ({"oa_step_convention": False}, "oa_step_convention"),
    "scheduler's options": ({"eta": 1.0}, "known here, got eta"),
    "another policy": ({"_target_": "x.DiffusionTransformerLowdimPolicy"}, "DiffusionTransformerLowdimPolicy"),
    "unresolved": ({"horizon": "${horizon}"}, "'horizon' to be an integer"),
    "variance": (
        {"noise_scheduler": {**COMMON["noise_scheduler"], "variance_type": "fixed_large"}},
        "'variance_type' to be \"fixed_small\"",
    ),
    "spacing": (
        {"noise_scheduler": {**COMMON["noise_scheduler"], "timestep_spacing": "trailing"}},
        "timestep_spacing",
    ),
}


@pytest.fixture
def of_written(monkeypatch):
    """Import what is written without the process in between."""

    def read(written):
        body = {"cfg": {"policy": written.policy}, "weights": "ema_model"}
        monkeypatch.setattr(stanford, "unpickled", lambda _: (body, written.weights))
        return imported(Path("a.ckpt"))

    return read


@pytest.mark.parametrize(("changed", "message"), OPTIONS.values(), ids=OPTIONS)
def test_what_is_not_supported_is_named(changed, message, of_written) -> None:
    of_written(of_states())
    with pytest.raises(Noise2ActionError, match=message):
        of_written(of_states(**changed))


def test_a_crop_that_versions_do_differently_is_refused(of_written) -> None:
    written = of_images()
    of_written(written)
    written.policy["obs_encoder"]["random_crop"] = False
    with pytest.raises(CheckpointError, match="'random_crop' to be true"):
        of_written(written)


def test_missing_options_and_weights_are_named(of_written) -> None:
    for name in ("num_inference_steps", "noise_scheduler"):
        written = of_states()
        written.policy.pop(name)
        with pytest.raises(CheckpointError, match=f"expected a field '{name}'"):
            of_written(written)
    written = of_states()
    key = "model.mid_modules.0.blocks.0.block.0.weight"
    written.weights["model.extra"] = written.weights.pop(key)
    with pytest.raises(CheckpointError, match=f"1 missing \\({key}\\) and 1 unexpected \\(model.extra\\)"):
        of_written(written)
    written = of_states()
    del written.weights["normalizer.params_dict.obs.scale"]
    with pytest.raises(CheckpointError, match=r"no normalizer\.params_dict\.obs\.scale"):
        of_written(written)


def test_which_weights_to_use_is_not_assumed(tmp_path) -> None:
    payload = of_states().payload()
    del payload["cfg"]._content["training"]
    torch.save(payload, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"training\.use_ema"):
        imported(tmp_path / "a.ckpt")


def test_what_comes_over_is_plain(tmp_path) -> None:
    body, tensors = pickled.unpickled(of_states().save(tmp_path / "a.ckpt"))
    assert json.loads(json.dumps(body))["cfg"]["name"] == "x"
    assert all(isinstance(x, torch.Tensor) for x in tensors.values())
