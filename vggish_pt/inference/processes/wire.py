"""Messages between worker processes and the process that started them, through the worker's two pipes.

A message to a worker is a length and a pickle. Messages from a worker, which has read files of any origin, are never
unpickled: each is a length, a JSON object, and log-mel frames whose number is in the JSON object.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Generator
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt import errors
from vggish_pt.inference.loading import WindowChunk, no_windows

# Largest number of windows in a message: 1.5 MiB.
MAX_WINDOWS = 64
_MAX_ROWS = MAX_WINDOWS * c.EXAMPLE_FRAMES
_MAX_HEADER = 1 << 20
_LENGTH = struct.Struct("<Q")


def send_object(stream: BinaryIO, value: object) -> None:
    """Send an object that can be pickled to a worker.

    Raises:
        OSError: the worker has ended.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive_object(stream: BinaryIO) -> Any:
    """Receive the next object, in the worker.

    Raises:
        EOFError: the pipe was closed.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))  # noqa: S301 (from the process that started this one)


def send_message(stream: BinaryIO, header: dict[str, Any], frames: Tensor | None = None) -> None:
    """Send a header, and frames (rows, 64) float32, from a worker."""
    text = json.dumps(header).encode()
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    if frames is not None and len(frames):
        stream.write(_bytes(frames.numpy()))
    stream.flush()


def receive_message(stream: BinaryIO) -> tuple[dict[str, Any], Tensor]:
    """Receive the next header and its windows, (n, 96, 64) float32.

    Raises:
        EOFError: the pipe was closed, or the bytes are not a valid message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _MAX_HEADER:
        raise EOFError
    try:
        header = json.loads(_exactly(stream, length))
        rows, step = int(header.get("rows", 0)), int(header.get("step", 1))
    except (ValueError, TypeError, AttributeError) as error:
        raise EOFError from error
    if rows == 0:
        return header, no_windows()
    if not c.EXAMPLE_FRAMES <= rows <= _MAX_ROWS or not 1 <= step <= c.EXAMPLE_FRAMES:
        raise EOFError
    frames = np.empty((rows, c.MEL_BANDS), np.float32)
    if stream.readinto(_bytes(frames)) != frames.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    return header, torch.from_numpy(frames).unfold(0, c.EXAMPLE_FRAMES, step).transpose(1, 2)


def messages(chunk: WindowChunk) -> Generator[tuple[dict[str, Any], Tensor]]:
    """Yield a chunk as messages: headers with frames. Of windows that overlap, each frame is sent once."""
    parts = torch.split(chunk.windows, MAX_WINDOWS)
    for i, windows in enumerate(parts):
        frames, step = _frames(windows)
        header: dict[str, Any] = {"rows": len(frames), "step": step}
        if i == len(parts) - 1:
            header["duration"] = chunk.duration
            header["error"] = None if chunk.error is None else _described(chunk.error)
        yield header, frames


def as_chunk(number: int, header: dict[str, Any], windows: Tensor) -> WindowChunk:
    """Return the chunk of a message."""
    duration, error = header.get("duration"), header.get("error")
    return WindowChunk(
        number,
        windows,
        None if duration is None else float(duration),
        None if error is None else _error(*error),
    )


def _bytes(array: NDArray[np.float32]) -> memoryview:
    return memoryview(cast("Any", array)).cast("B")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _frames(windows: Tensor) -> tuple[Tensor, int]:
    """Return the frames of windows, (rows, 64), and the number of frames from one window's start to the next."""
    step = windows.stride(0) // c.MEL_BANDS
    if len(windows) > 1 and windows.stride() == (step * c.MEL_BANDS, c.MEL_BANDS, 1) and step < c.EXAMPLE_FRAMES:
        rows = (len(windows) - 1) * step + c.EXAMPLE_FRAMES
        return windows.as_strided((rows, c.MEL_BANDS), (c.MEL_BANDS, 1)), step
    return windows.contiguous().view(-1, c.MEL_BANDS), c.EXAMPLE_FRAMES


def _described(error: errors.VGGishError) -> list[str | None]:
    return [type(error).__name__, str(error), getattr(error, "source", None)]


def _error(name: str, message: str, source: str | None) -> errors.VGGishError:
    kind = getattr(errors, name, None)
    if not isinstance(kind, type) or not issubclass(kind, errors.VGGishError):
        kind = errors.VGGishError
    return kind(message, source) if issubclass(kind, errors.AudioError) else kind(message)
