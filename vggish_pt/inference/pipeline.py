"""Embedding many clips: decode → resample → log-mel windows → network → postprocess, batched across clips.

Threads or worker processes load clips ahead of the network, which runs in the caller's thread. Embeddings aside, memory
does not grow with the length or the number of clips.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vggish_pt import constants as c
from vggish_pt.audio import AudioLike, Clip
from vggish_pt.audio.resample import require_resampler
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.inference.batching import DEFAULT_BATCH_SIZE, Batch
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.loading import WindowChunk, load_windows
from vggish_pt.inference.settings import EmbedSettings, check_workers
from vggish_pt.nn.windows import window_times
from vggish_pt.utils.prefetch import ReadAhead, prefetch

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from vggish_pt.nn.extractor import Extractor

# Limit on results that wait for the result of an earlier clip. Above it, no further clip is started.
_MAX_WAITING_BYTES = 1 << 26
_RECORD_BYTES = 1 << 12  # memory of a result besides its values

_Result: TypeAlias = Embeddings | VGGishError

Reduce: TypeAlias = Callable[[Tensor], Tensor]
"""Reduces the values of some windows to what the caller needs: (n, ...) → (n, ...)."""


def is_many(source: object) -> bool:
    """Return True if ``source`` is an iterable of sources, False if it is one source."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, Tensor)
    return isinstance(source, Iterable) and not isinstance(source, one) and not hasattr(source, "read")


def use_processes(workers: int, device: torch.device) -> bool:
    """Return True if worker processes are the better choice for a data set, False if threads are.

    With processes, a crash in a decoder costs one file, and workers do not share the interpreter's lock. But a process
    takes some seconds and 200 MB to start, and one thread decodes as fast as a network on the CPU computes.

    Args:
        workers: number of workers.
        device: where the network computes.
    """
    return workers >= 2 or (workers == 1 and device.type != "cpu")


def embed_sources(
    model: Extractor,
    sources: Iterable[AudioLike],
    sample_rate: float | None,
    settings: EmbedSettings,
    *,
    workers: int = 1,
    reduce: Reduce | None = None,
) -> Generator[Embeddings | VGGishError]:
    """Embed sources in order; see :meth:`vggish_pt.VGGish.embed_iter`.

    Args:
        model: the model.
        sources: any iterable. Sources without a name of their own are called "input 0", "input 1", ...
        sample_rate: hertz, for arrays and tensors.
        settings: settings of the embedding.
        workers: number of threads that load clips ahead of the network; 0 for none.
        reduce: see :func:`embed_clips`.

    Raises:
        SettingsError: settings that do not fit the model, or a single source instead of an iterable.
    """
    if not is_many(sources):
        raise SettingsError(f"embed_iter takes many sources; put the {type(sources).__name__} in a list")
    clips = (
        Clip.from_source(source, sample_rate, name=None if _has_name(source) else f"input {number}")
        for number, source in enumerate(sources)
    )
    results = embed_clips(model, clips, settings, workers=workers, reduce=reduce)

    def without_clips() -> Generator[Embeddings | VGGishError]:
        with closing(results):
            for _, result in results:
                yield result

    return without_clips()


def embed_clips(
    model: Extractor | Sequence[Extractor],
    items: Iterable[Clip],
    settings: EmbedSettings,
    *,
    workers: int = 1,
    processes: bool | None = False,
    ordered: bool = True,
    reduce: Reduce | None = None,
) -> Generator[tuple[Clip, Embeddings | VGGishError]]:
    """Embed the clips of a data set. Closing the generator early stops its threads and processes.

    Args:
        model: the model; or replicas of it on several devices (:func:`vggish_pt.inference.replicas`), which share the
            work.
        items: the clips, any iterable; it is read as far ahead as needed to fill batches.
        settings: settings of the embedding.
        workers: number of threads or processes that load clips ahead of the network; 0 for none.
        processes: True for worker processes (:mod:`vggish_pt.inference.processes`), False for threads, None to let
            :func:`use_processes` choose. On the CPU, the numbers are the same bit for bit.
        ordered: True yields results in the order of the clips; False yields each as soon as it is complete.
        reduce: reduces the values of some windows, (n, ...) → (n, ...), to save memory; None keeps them.

    Yields:
        Each clip with its embeddings, or with the error that says why there are none. Times are seconds since the
        beginning of the file, also for a segment of it.

    Raises:
        SettingsError: settings that do not fit the model.
        WorkerError: worker processes cannot be started.
    """
    check_workers(workers)
    models = list(model) if isinstance(model, Sequence) else [model]
    if not models:
        raise SettingsError("embed_clips takes a model, or a list of at least one")
    check_model(models[0], settings)
    if processes is None:
        processes = use_processes(workers, models[0].device)
    records = _Records(Batch(models, settings), settings.hop, reduce, ordered=ordered)
    size = settings.batch_size or DEFAULT_BATCH_SIZE
    clips = records.begin(items)
    if processes and workers:
        from vggish_pt.inference.processes import read_in_processes

        chunks = read_in_processes(clips, models[0].frontend, settings, workers, ahead=size, hold=records.full)
    else:
        # The front end computes where the network is; on the CPU if there are several devices.
        device = models[0].device if len(models) == 1 else torch.device("cpu")
        chunks = prefetch(
            clips,
            lambda clip: load_windows(clip, models[0].frontend, settings, device),
            workers,
            prepare=_use_one_thread,
            ahead=ReadAhead(size, size, lambda clip: clip.nbytes, lambda chunk: len(chunk.windows)),
        )
    return records.results(chunks)


def check_model(model: Extractor, settings: EmbedSettings) -> None:
    """Check, before any work is done, that the model and the installed packages can do what the settings ask.

    Raises:
        MissingDependencyError: the resampler's library is not installed.
        WeightsError: the model has no PCA parameters.
    """
    require_resampler(settings.resampler)
    if settings.postprocess is not None and not model.postprocess.available:
        model.postprocess(torch.zeros(0, c.EMBEDDING_SIZE))  # raises the error that says what is missing


def _has_name(source: object) -> bool:
    return isinstance(source, str | os.PathLike) or isinstance(getattr(source, "name", None), str)


def _use_one_thread() -> None:
    """Limit torch in this thread to one OpenMP thread: sharing out the small operations of loading costs more."""
    torch.get_num_threads()  # the first call in a thread sets torch's own number, so it must come first
    _openmp().limit(limits=1, user_api="openmp")


@cache
def _openmp() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class _Record:
    """A clip whose values are being collected: a receiver of :class:`~vggish_pt.inference.batching.Batch`.

    Attributes:
        number: position among the clips of the call.
        clip: the clip as the caller gave it.
        pending: windows in the batch whose values are still to come.
        result: the embeddings or the error, once the clip is complete.
    """

    def __init__(self, number: int, clip: Clip, reduce: Reduce | None, complete: deque[_Record]) -> None:
        self.number = number
        self.clip = clip
        self.pending = 0
        self.result: _Result | None = None
        self._reduce = reduce or (lambda values: values)
        self._complete = complete  # the record appends itself when nothing more is to come
        self._last: WindowChunk | None = None
        self._values: list[Tensor] = []

    def end(self, chunk: WindowChunk) -> None:
        """Take note of the clip's last chunk, after its windows were added to the batch."""
        self._last = chunk
        if self.pending == 0 or chunk.error is not None:
            self._complete.append(self)

    def take(self, values: Tensor) -> None:
        """Store the values of the clip's next windows."""
        self.pending -= len(values)
        if self._last is not None and self._last.error is not None:
            return
        self._values.append(self._reduce(values))
        if self._last is not None and self.pending == 0:
            self._complete.append(self)

    def finish(self, batch: Batch, hop: float) -> None:
        """Set the result of the clip, which is complete."""
        assert self._last is not None
        if self._last.error is not None:
            self.result = self._last.error
        else:
            values = torch.cat(self._values) if self._values else self._reduce(batch.empty())
            start, end = map(torch.from_numpy, window_times(0, len(values), hop))
            offset = self.clip.start or 0.0
            duration = self._last.duration or 0.0
            self.result = Embeddings(values, start + offset, end + offset, self.clip.name, duration)
        self._values.clear()

    @property
    def nbytes(self) -> int:
        """Memory that the result takes."""
        return _RECORD_BYTES + (self.result.values.nbytes if isinstance(self.result, Embeddings) else 0)


class _Records:
    """The clips in progress, from the clip that is started to the result that is yielded.

    Args:
        batch: computes the windows.
        hop: seconds from the start of one window to the next.
        reduce: see :func:`embed_clips`.
        ordered: True yields results in the order of the clips; worker processes load them in any order.
    """

    def __init__(self, batch: Batch, hop: float, reduce: Reduce | None, *, ordered: bool) -> None:
        self._batch = batch
        self._hop = hop
        self._reduce = reduce
        self._ordered = ordered
        self._records: dict[int, _Record] = {}
        self._complete: deque[_Record] = deque()
        self._next = 0
        self._waiting_bytes = 0

    def begin(self, clips: Iterable[Clip]) -> Generator[Clip]:
        """Yield the clips, numbered in the order in which loading starts."""
        for number, clip in enumerate(clips):
            self._records[number] = _Record(number, clip, self._reduce, self._complete)
            yield clip.at(number)

    def full(self) -> bool:
        """Return True if the results that wait for an earlier clip take too much memory to start another clip."""
        return self._waiting_bytes > _MAX_WAITING_BYTES

    def results(self, chunks: Generator[WindowChunk]) -> Generator[tuple[Clip, _Result]]:
        """Run the network on chunks as they come, and yield the clips with their results."""
        with closing(chunks):  # stops its threads and processes at once, whatever happens
            for chunk in chunks:
                record = self._records[chunk.number]
                self._batch.add(record, chunk.windows)
                if chunk.last:
                    record.end(chunk)
                yield from self._ready()
        self._batch.run_all()
        yield from self._ready()

    def _ready(self) -> Generator[tuple[Clip, _Result]]:
        while self._complete:
            record = self._complete.popleft()
            record.finish(self._batch, self._hop)
            self._waiting_bytes += record.nbytes
            if not self._ordered:
                self._next = record.number
            while (done := self._records.get(self._next)) is not None and done.result is not None:
                del self._records[self._next]
                self._waiting_bytes -= done.nbytes
                self._next += 1
                yield done.clip, done.result
