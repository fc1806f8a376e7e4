"""A program of its own: takes the tensors and the configuration out of a pickled checkpoint, and runs nothing of it.

`python -I unpickle.py FILE FOLDER` writes FOLDER/config.json and FOLDER/weights.safetensors. It stands alone, without
torch, so that it starts with little and can be held in tight limits. Its unpickler knows a closed list of names; every
other one is refused, by name, before anything is called. What the list returns are holders of data.
"""

import contextlib
import io
import json
import pickle
import resource
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

MOST_PICKLE = 256 << 20
"""Bytes of the pickle itself; tensors lie beside it."""
DEEPEST = 64
"""Nesting of a configuration."""
MOST_VALUES = 100_000
"""Values of a configuration: what it names twice counts twice."""
SECONDS = 600
"""Processor time."""


class Refused(Exception):  # noqa: N818 - a verdict, printed as one line
    """What the file holds is not what is allowed."""


class Storage(NamedTuple):
    """Numbers of a file of the archive, not read yet."""

    key: str
    dtype: str
    length: int


class View(NamedTuple):
    """A tensor, not read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Node:
    """A node of a configuration: an object whose state is kept and never used but as data."""

    state: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        self.state = state if isinstance(state, dict) else {}


def _view(storage: object, offset: object, size: object, stride: object, *_: object) -> View:
    if not isinstance(storage, Storage):
        raise Refused(f"expected a tensor of a storage, got one of {type(storage).__name__}")
    return View(storage, _count(offset), _counts(size), _counts(stride))


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 16:
        raise Refused(f"expected sizes of a tensor, got {type(values).__name__}")
    return tuple(_count(v) for v in values)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise Refused(f"expected a size, got {str(value)[:40]}")
    return value


def _parameter(data: object, *_: object) -> object:
    return data


def _bytes(text: object = "", encoding: object = "latin1") -> bytes:
    """Return bytes as protocol 2 spells them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("expected bytes, got something else")
    return text.encode("latin1")


def _name(text: object) -> str:
    return f"type {str(text)[:40]}"


def _dictionary(*_: object) -> dict[object, object]:
    """Return an empty dictionary, whatever it would make where a key is missing."""
    return {}


DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Storages of torch whose numbers numpy holds too."""

ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _dictionary,
    ("_codecs", "encode"): _bytes,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "type"): _name for module in ("builtins", "__builtin__")},
    **{
        (module, name): _name(name)
        for module in ("builtins", "__builtin__", "typing")
        for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "object", "Any", "Dict", "List", "Union")
    },
    **{(module, "_load_type"): _name for module in ("dill._dill", "dill.dill")},
    **{("omegaconf.base", name): Node for name in ("ContainerMetadata", "Metadata")},
    ("omegaconf.dictconfig", "DictConfig"): Node,
    ("omegaconf.listconfig", "ListConfig"): Node,
    **{
        ("omegaconf.nodes", f"{name}Node"): Node
        for name in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")
    },
}
"""All that a checkpoint may name, and what stands for it here: holders of data, and texts."""


class Unpickler(pickle.Unpickler):
    """Resolves the names of `ALLOWED` and no others."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401
        """Return what stands for a name; `Refused` for any other."""
        if (module_name, global_name) not in ALLOWED:
            raise Refused(f"expected tensors and a configuration, got {module_name}.{global_name}: it is not executed")
        return ALLOWED[module_name, global_name]

    def persistent_load(self, pid: object) -> Storage:
        """Return the storage that the file names."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise Refused("expected a storage, got another reference")
        _, dtype, key, _, count = pid
        if dtype not in DTYPES.values():
            raise Refused(f"expected numbers of {', '.join(DTYPES)}, got {str(dtype)[:40]}")
        return Storage(str(key), dtype, _count(count))


def read(archive: zipfile.ZipFile) -> tuple[object, str]:
    """Return the unpickled holders, and the folder inside the archive that the tensors lie in."""
    names = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(names) != 1 or names[0].file_size > MOST_PICKLE:
        raise Refused("expected one data.pkl of a usual size, as torch.save writes since 1.6, got another archive")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise Refused("expected an archive that is not compressed, got one that is")
    root = names[0].filename.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order).strip() != b"little":
        raise Refused("expected numbers in little-endian order, got others")
    return Unpickler(io.BytesIO(archive.read(names[0]))).load(), root


def plain(value: object, seen: list[None], depth: int = 0) -> Any:  # noqa: ANN401
    """Return a configuration as JSON: objects, lists, texts, numbers, true, false and null; `seen` grows by a value."""
    seen.append(None)
    if depth > DEEPEST or len(seen) > MOST_VALUES:
        raise Refused("expected a configuration of a usual size, got one that is deeper or larger")
    if isinstance(value, Node):
        return plain(value.state.get("_content", value.state.get("_val")), seen, depth + 1)
    if isinstance(value, Mapping):
        return {str(plain(k, seen, depth + 1)): plain(v, seen, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, Storage | View):
        return [plain(v, seen, depth + 1) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Refused(f"expected a plain configuration, got {type(value).__name__}")


def array(view: View, archive: zipfile.ZipFile, root: str) -> np.ndarray:
    """Return the numbers of a tensor, contiguous; `Refused` where it reaches beyond its storage."""
    body = archive.read(f"{root}data/{view.storage.key}")
    numbers = np.frombuffer(body, dtype=view.storage.dtype)
    elements, last = 1, view.offset
    for n, step in zip(view.size, view.stride, strict=True):
        elements *= n
        last += (n - 1) * step
    if len(numbers) != view.storage.length or elements > max(len(numbers), 1) or (elements and last >= len(numbers)):
        raise Refused(f"expected a tensor inside its storage of {len(numbers)}, got {view.size} from {view.offset}")
    if not elements:
        return np.zeros(view.size, dtype=view.storage.dtype)
    steps = [step * numbers.itemsize for step in view.stride]
    return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.size, steps).copy()


def convert(file: Path, folder: Path) -> None:
    """Write config.json and weights.safetensors of `file`: the averaged weights where its configuration says so."""
    with zipfile.ZipFile(file) as archive:
        payload, root = read(archive)
        parts = payload if isinstance(payload, Mapping) else {}
        states, found = parts.get("state_dicts"), plain(parts.get("cfg"), [])
        if not isinstance(states, Mapping) or not isinstance(found, dict):
            raise Refused(f"expected 'cfg' and 'state_dicts', got {sorted(map(str, parts))[:8]}")
        training = found.get("training")
        if not isinstance(training, dict) or not isinstance(training.get("use_ema"), bool):
            raise Refused("expected a field training.use_ema in cfg, got none: which weights to use is not assumed")
        chosen = "ema_model" if training["use_ema"] else "model"
        weights = states.get(chosen)
        if not isinstance(weights, Mapping):
            raise Refused(f"expected the weights {chosen!r}, got {sorted(map(str, states))[:8]}")
        arrays: dict[str, np.ndarray] = {}
        for name, view in weights.items():
            if not isinstance(name, str) or not isinstance(view, View):
                raise Refused(f"expected tensors in {chosen!r}, got {type(view).__name__} at {str(name)[:60]}")
            arrays[name] = array(view, archive, root)
    save_file(arrays, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"weights": chosen, "cfg": found}, allow_nan=False))


def limit(size: int) -> None:
    """Bound memory, time and files: what a file of `size` bytes justifies."""
    bounds = {
        "RLIMIT_AS": 4 * size + (2 << 30),
        "RLIMIT_CPU": SECONDS,
        "RLIMIT_FSIZE": size + (64 << 20),
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
    }
    for name, bound in bounds.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not every system has every one
            resource.setrlimit(getattr(resource, name), (bound, bound))


def main(file: Path, folder: Path) -> int:
    """Run the program: 0 and the two files, or 2 and one line on standard error."""
    try:
        limit(file.stat().st_size)
        convert(file, folder)
    except Refused as verdict:
        message = str(verdict)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        message = f"expected an archive as torch.save writes since 1.6, got {error}"
    except MemoryError:
        message = "expected a file that memory is in proportion to, got one that asks for more"
    except Exception as error:
        message = f"expected tensors and a configuration, got {type(error).__name__}: {error}"
    else:
        return 0
    sys.stderr.write(message + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
