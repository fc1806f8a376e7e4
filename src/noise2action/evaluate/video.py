"""Rollouts as mp4 files that every browser plays."""

import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..errors import MissingExtraError
from ..storage import atomic_write

SMALLEST = 256
"""Frames whose shorter side is below this are enlarged by a whole factor: browsers blur tiny videos."""


def encode_mp4(frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> bytes:
    """Return an mp4 (H.264, yuv420p, index first) of `frames`, played at `fps`.

    Sides are made even by repeating the last row or column, as yuv420p demands. Raises `ValueError` for no frames or
    frames of different sizes, `MissingExtraError` without PyAV.
    """
    try:
        import av  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("PyAV", "report") from error
    size: tuple[int, ...] | None = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollout.mp4"  # moving the index to the front re-opens the file by its name
        with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "23", "preset": "medium"}
            for frame in frames:
                picture = np.ascontiguousarray(_even(_enlarged(frame)))
                if size is None:
                    size = frame.shape
                    stream.height, stream.width = picture.shape[:2]
                if frame.shape != size:
                    raise ValueError(f"expected frames of one size {size}, got {frame.shape}")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if size is None:
                raise ValueError("expected at least one frame, got none: record an episode")
            container.mux(stream.encode())
        return path.read_bytes()


def write_mp4(path: Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> None:
    """Write `encode_mp4(frames, fps)` to `path`."""
    atomic_write(path, encode_mp4(frames, fps))


def _enlarged(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    factor = -(-SMALLEST // min(frame.shape[:2]))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def _even(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
