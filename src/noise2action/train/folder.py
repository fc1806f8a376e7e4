"""The run folder: who works in it, what was configured, and the metrics so far.

run/.lock  config.json  env.json  metrics.jsonl  checkpoints/
"""

import contextlib
import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .. import __version__
from ..errors import ConfigError, DataError, RunLockedError, StorageError
from ..machine import hardware
from ..storage import atomic_write


@contextmanager
def locked(run: Path) -> Generator[None]:
    """Hold the run folder; `RunLockedError` names who holds it already. The lock ends with the process."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("a+")
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"expected a folder to write the run to, got a file in the way: {run}") from error
    except OSError as error:
        raise StorageError(f"expected a writable run folder, got {error.strerror}: {run}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(
                f"expected a free run folder, got {run} in use by {_holder(lock)}: wait for it, or choose another --out"
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "boot_id": _boot_id()}))
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    """Return who holds the lock; they write it just after they got it."""
    for _ in range(20):
        lock.seek(0)
        if found := lock.read().strip():
            return found
        time.sleep(0.05)
    return "another process"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_env(run: Path, *, threads: int, precision: str) -> None:
    """Write env.json: versions, hardware and commit, so that a figure can be traced."""
    packages = {name: version(name) for name in ("torch", "numpy", "safetensors")}
    body = {
        "noise2action": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "hardware": hardware(),
        "threads": threads,
        "precision": precision,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }
    write_json(run / "env.json", body)


def _commit() -> str | None:
    repository = Path(__file__).parents[3]
    if not (repository / ".git").exists():  # installed: a repository around it would be the user's
        return None
    command = ["git", "-C", str(repository), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_json(path: Path, body: object) -> None:
    """Write `body` as JSON, atomically."""
    atomic_write(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Return the JSON in `path`, or raise `DataError`."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"expected a readable file, got {error.strerror}: {path}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, got {error}") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl; an unfinished last line, as a kill leaves it, is skipped."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record: Any = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and {"kind", "step"} <= record.keys():
            records.append(record)
        elif number < len(lines):
            raise DataError(f"{path}:{number}: expected a JSON record with kind and step, got {line[:60]!r}")
    return records


class Metrics:
    """Appends records to metrics.jsonl, a line each, and to TensorBoard where a writer is given."""

    def __init__(self, run: Path, *, after_step: int, tensorboard: bool) -> None:
        kept = [r for r in read_metrics(run) if r["step"] <= after_step]
        path = run / "metrics.jsonl"
        # A resumed run repeats the steps since its checkpoint: their first records go.
        atomic_write(path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._file = path.open("a")
        self._board = _tensorboard(run) if tensorboard else None

    def __enter__(self) -> "Metrics":
        """Return the open metrics."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # a full disk was told when the record was added
            self._file.close()
        if self._board is not None:
            self._board.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record with its `kind` and `step`."""
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"expected to append to {self._file.name}, got {error.strerror}: free disk space"
            ) from error
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])


def _tensorboard(run: Path) -> Any:  # noqa: ANN401
    from ..errors import MissingExtraError  # noqa: PLC0415

    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard") from error
    return SummaryWriter(str(run / "tensorboard"))
