"""The decoded audio of a data set, kept, so that training decodes each file once and not in every epoch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt.audio import open_audio
from vggish_pt.audio.clip import Clip
from vggish_pt.audio.resample import ResamplerName, require_resampler
from vggish_pt.audio.waveform import waveform_chunks
from vggish_pt.errors import AudioError, OutputError, VGGishError
from vggish_pt.utils.prefetch import prefetch

Samples = NDArray[np.float32]

_SAMPLES_NAME = "waveforms.f32"
_INDEX_NAME = "waveforms.json"


class WaveformStore:
    """Waveforms at 16 kHz by number, in memory or in a file that is mapped into it.

    Args:
        lengths: samples of each.
        arrays: the waveforms, or None if they lie one after the other, as float32, in ``path``.
        path: that file.
    """

    def __init__(self, lengths: Sequence[int], arrays: list[Samples] | None, path: Path | None = None) -> None:
        self.lengths = list(lengths)
        self._arrays = arrays
        self._path = path
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self._mapped: Samples | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Samples:
        """(T,) float32, not to be written to."""
        if self._arrays is not None:
            return self._arrays[number]
        if self._mapped is None:
            self._mapped = np.memmap(self._path or "", dtype=np.float32, mode="r")
        return self._mapped[self._offsets[number] : self._offsets[number + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # worker processes map the file themselves


def decode(item: Clip, resampler: ResamplerName = "soxr") -> Samples:
    """The waveform of an input at 16 kHz, (T,) float32.

    Raises:
        AudioError: it is missing, empty, damaged or non-finite.
    """
    name = item.name
    try:
        with open_audio(item.audio_source, name=name, start=item.start, end=item.end) as audio:
            return np.concatenate(list(waveform_chunks(audio, resampler))).astype(np.float32)
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, VGGishError):
            raise
        raise AudioError(f"{name}: cannot be read ({type(error).__name__}: {error})", name) from None


def load(
    items: Sequence[Clip],
    folder: Path | None,
    *,
    resampler: ResamplerName = "soxr",
    workers: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> tuple[WaveformStore, dict[int, AudioError]]:
    """Decodes a data set.

    Args:
        items: what to decode.
        folder: where to keep the samples in a file, which a later call with the same items takes as it is; None keeps
            them in memory. A minute of sound has 3.8 MB.
        resampler: which library resamples.
        workers: threads that decode.
        watch: is told how many are done, and of how many.

    Returns:
        The waveforms, of length 0 where an input could not be read, and why it could not, by its place.

    Raises:
        MissingDependencyError: the resampler's library is not there.
        OutputError: the folder cannot be written.
    """
    require_resampler(resampler)
    digest = hashlib.blake2b(resampler.encode() + b"".join(item.key for item in items), digest_size=16).hexdigest()
    if folder is not None and (found := _reopen(folder, digest)) is not None:
        return found, {}
    failures: dict[int, AudioError] = {}
    arrays: list[Samples] = []
    lengths: list[int] = []

    def decoded(place: int) -> Generator[Samples | AudioError]:
        try:
            yield decode(items[place], resampler)
        except AudioError as error:
            yield error

    try:
        file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _INDEX_NAME).unlink(missing_ok=True)
            file = (folder / _SAMPLES_NAME).open("wb")
        with closing(prefetch(range(len(items)), decoded, workers)) as pieces:
            for place, piece in enumerate(pieces):
                if isinstance(piece, AudioError):
                    failures[place] = piece
                    piece = np.zeros(0, np.float32)
                lengths.append(len(piece))
                if file is None:
                    arrays.append(piece)
                else:
                    file.write(piece.tobytes())
                if watch is not None:
                    watch(place + 1, len(items))
        if folder is None or file is None:
            return WaveformStore(lengths, arrays), failures
        file.close()
        if not failures:
            index = json.dumps({"digest": digest, "lengths": lengths})
            (folder / _INDEX_NAME).write_text(index, encoding="ascii")
        if sum(lengths) == 0:  # an empty file cannot be mapped
            return WaveformStore(lengths, [np.zeros(0, np.float32)] * len(lengths)), failures
        return WaveformStore(lengths, None, folder / _SAMPLES_NAME), failures
    except OSError as error:
        if isinstance(error, VGGishError):
            raise
        raise OutputError(f"{folder}: cannot keep the decoded audio there ({error.strerror or error})") from error
    finally:
        if file is not None:
            file.close()


def remove(folder: Path) -> None:
    """Removes what :func:`load` kept in a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _reopen(folder: Path, digest: str) -> WaveformStore | None:
    try:
        index = json.loads((folder / _INDEX_NAME).read_text(encoding="ascii"))
        lengths = [int(length) for length in index["lengths"]]
        size = (folder / _SAMPLES_NAME).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if index["digest"] != digest or size != 4 * sum(lengths) or size == 0 or min(lengths) < 0:
        return None
    return WaveformStore(lengths, None, folder / _SAMPLES_NAME)
