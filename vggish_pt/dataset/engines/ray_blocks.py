"""Inputs of a Ray run in blocks: an actor embeds one block at a time, and a lost process loses one block at most."""

from __future__ import annotations

import contextlib
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from pathlib import Path

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.outcomes import failure
from vggish_pt.dataset.schema import Failure
from vggish_pt.errors import AudioError
from vggish_pt.utils.text import joined_lines

_MAX_INPUTS = 256  # in a block
_BLOCK_BYTES = 64 << 20  # approximate size of the audio files of a block
_BLOCKS_PER_ACTOR = 8  # at least, so that all actors finish at about the same time
_DEFAULT_BYTES = 1 << 20  # size of an input whose size is unknown
_SAMPLES, _SAMPLED_INPUTS = 64, 1024


def pack(items: list[Clip]) -> bytes:
    """Serialize inputs for an actor; 256 paths take some kilobytes.

    Raises:
        Exception: an object of another library cannot be pickled.
    """
    return zlib.compress(pickle.dumps(items, pickle.HIGHEST_PROTOCOL), 1)


def unpack(data: bytes) -> list[Clip]:
    """Return the inputs that :func:`pack` serialized in this run. Data from elsewhere must never be passed."""
    items: list[Clip] = pickle.loads(zlib.decompress(data))  # noqa: S301 (made by this run)
    return items


def inputs_per_block(items: Iterable[Clip], actors: int) -> int:
    """Return the number of inputs in a block: large enough to fill batches, small enough to be repeated.

    Args:
        items: the inputs. If they have a length, they are iterated to read the sizes of some of the first files.
        actors: number of actors.
    """
    if not isinstance(items, Sized):  # an iterator can be read only once
        return _MAX_INPUTS
    count = len(items)
    sizes = [_size(item) for item in islice(items, 0, _SAMPLED_INPUTS, max(1, min(count, _SAMPLED_INPUTS) // _SAMPLES))]
    fit = _BLOCK_BYTES // max(1, sum(sizes) // max(1, len(sizes)))
    return max(1, min(_MAX_INPUTS, fit, -(-count // (actors * _BLOCKS_PER_ACTOR))))


def _size(item: Clip) -> int:
    """Return the size of an input's file in bytes, or a default if it is unknown."""
    if item.source is None:
        with contextlib.suppress(OSError, ValueError):
            return Path(item.path).stat().st_size
    size = len(item.source) if isinstance(item.source, bytes) else getattr(item.source, "size", None)
    return size if isinstance(size, int) else _DEFAULT_BYTES


def packed_blocks(items: Iterable[Clip], size: int) -> Iterator[bytes | Failure]:
    """Yield the inputs in packed blocks of ``size`` inputs, and a failure for each input that cannot be packed."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        try:
            yield pack(block)
        except Exception:  # objects of other libraries raise any class
            packable = []
            for item in block:
                try:
                    pack([item])
                except Exception as error:
                    message = f"cannot be sent to a cluster ({joined_lines(error)})"
                    yield failure(item.path, AudioError(message, item.path), item)
                else:
                    packable.append(item)
            if packable:
                yield pack(packable)
