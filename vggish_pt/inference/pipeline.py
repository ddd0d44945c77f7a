"""From sources to embeddings: decode → resample → examples → network → postprocess, batched across sources.

Threads or worker processes decode, resample and run the front end ahead; the caller's thread runs the network. Neither
the length of a source nor their number adds to memory, embeddings aside.
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
from vggish_pt.audio import AudioLike, display_name
from vggish_pt.audio.resample import require_resampler
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.inference.batching import DEFAULT_BATCH_SIZE, Batch
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.loading import Task, WindowChunk, read
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.nn.windows import window_times
from vggish_pt.utils.prefetch import ReadAhead, prefetch

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from vggish_pt.audio.clip import Clip
    from vggish_pt.nn.extractor import Extractor

# Embeddings that wait, in input order, for those of an input before them. Beyond, no further input is begun.
_MAX_WAITING_BYTES = 1 << 26
_RECORD_BYTES = 1 << 12  # what an input costs besides

_Result: TypeAlias = Embeddings | VGGishError

Reduce: TypeAlias = Callable[[Tensor], Tensor]
"""What to keep of the values of some windows: (n, ...) → (n, ...)."""


def is_many(source: object) -> bool:
    """Whether ``embed`` was given many sources, not one."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, Tensor)
    return isinstance(source, Iterable) and not isinstance(source, one) and not hasattr(source, "read")


def use_processes(workers: int, device: torch.device) -> bool:
    """Whether worker processes or threads are the better choice for a data set.

    Processes where ``workers`` is 2 or more, or the network is computed elsewhere than on the CPU: a crash in a decoder
    then costs one file, and the interpreter's lock is not shared. Threads otherwise: a worker process takes some
    seconds and 200 MB to start, and beside a network on the CPU one thread decodes as fast as it takes.

    Args:
        workers: how many there shall be.
        device: where the network is computed.
    """
    return workers >= 2 or (workers == 1 and device.type != "cpu")


def embed_sources(
    model: Extractor,
    sources: Iterable[AudioLike],
    sample_rate: float | None,
    settings: EmbedSettings,
    *,
    workers: int = 1,
    numbered: bool = True,
    reduce: Reduce | None = None,
) -> Generator[Embeddings | VGGishError]:
    """Embeds sources one after the other; see :meth:`vggish_pt.VGGish.embed_iter`.

    Args:
        model: the model.
        sources: any iterable.
        sample_rate: hertz, for arrays.
        settings: what decides the numbers.
        workers: threads that read ahead; 0 for none.
        numbered: whether sources without a name of their own are called by their number.
        reduce: see :func:`embed_clips`.

    Raises:
        SettingsError: settings that do not fit the model, or no iterable.
    """
    check_workers(workers)
    check_model(model, settings)
    if not is_many(sources):
        raise SettingsError(f"embed_iter takes many sources; put the {type(sources).__name__} in a list")
    tasks = (
        Task(i, source, f"input {i}" if numbered and not _has_name(source) else None, sample_rate)
        for i, source in enumerate(sources)
    )
    results = _run([model], tasks, settings, workers, processes=False, ordered=True, reduce=reduce)
    return _without_numbers(results)


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
    """Embeds the inputs of a data set; closing the iterator early stops its threads and processes.

    Args:
        model: the model; or replicas of it on several devices (:func:`vggish_pt.inference.devices.replicas`), which
            share the work.
        items: any iterable; it is read as far ahead as needed to fill batches.
        settings: what decides the numbers.
        workers: threads or processes that read ahead; 0 for none.
        processes: True for worker processes (:mod:`vggish_pt.inference.processes`), False for threads, None to let
            :func:`use_processes` choose. On the CPU, the numbers are the same bit for bit.
        ordered: True gives results in the order of the items; False, as soon as they are complete.
        reduce: what is kept of the values of some windows, (n, ...) → (n, ...), where that is smaller.

    Yields:
        Each input with its embeddings, or the error that says why there are none. Their times are seconds in the file,
        also where the item is a part of it.

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
    return _embed_items(models, items, settings, workers, processes, ordered, reduce)


def _embed_items(
    models: Sequence[Extractor],
    items: Iterable[Clip],
    settings: EmbedSettings,
    workers: int,
    processes: bool,
    ordered: bool,
    reduce: Reduce | None,
) -> Generator[tuple[Clip, _Result]]:
    taken: dict[int, Clip] = {}

    def tasks() -> Generator[Task]:
        for number, item in enumerate(items):
            taken[number] = item
            source = item.path if item.source is None else item.source
            yield Task(number, source, display_name(item.path), start=item.start, end=item.end)

    run = _run(models, tasks(), settings, workers, processes=processes, ordered=ordered, reduce=reduce)
    with closing(run) as results:
        for number, result in results:
            item = taken.pop(number)
            if item.start and isinstance(result, Embeddings):
                result.start.add_(item.start)
                result.end.add_(item.start)
            yield item, result


def check_workers(workers: int) -> None:
    """Makes sure that there can be so many workers.

    Raises:
        SettingsError: there cannot.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 256:
        raise SettingsError(f"workers must be a whole number from 0 to 256, not {workers!r}")


def check_model(model: Extractor, settings: EmbedSettings) -> None:
    """Makes sure, before any work is done, that the model and this machine can do what the settings ask.

    Raises:
        MissingDependencyError: the resampler's library is not there.
        WeightsError: the model has no PCA parameters.
    """
    require_resampler(settings.resampler)
    if settings.postprocess is not None and not model.postprocess.available:
        model.postprocess(torch.zeros(0, c.EMBEDDING_SIZE))  # says what is missing


def _run(
    models: Sequence[Extractor],
    tasks: Iterable[Task],
    settings: EmbedSettings,
    workers: int,
    *,
    processes: bool,
    ordered: bool,
    reduce: Reduce | None = None,
) -> Generator[tuple[int, _Result]]:
    batch = Batch(models, settings)
    records: dict[int, _Record] = {}  # of the sources that are not complete
    complete: deque[_Record] = deque()
    queue = _Queue(ordered)

    def results() -> Generator[tuple[int, _Result]]:
        while complete:
            record = complete.popleft()
            del records[record.number]
            yield from queue.put(record.number, record.result(batch, settings.hop))

    size = settings.batch_size or DEFAULT_BATCH_SIZE
    if processes and workers:
        from vggish_pt.inference.processes import read_in_processes

        pieces = read_in_processes(tasks, models[0].frontend, settings, workers, ahead=size, hold=queue.full)
    else:
        # The front end runs where the network is; on the CPU if that is in several places.
        device = models[0].device if len(models) == 1 else torch.device("cpu")
        ahead: ReadAhead[Task, WindowChunk] = ReadAhead(
            size, size, lambda task: task.weight, lambda piece: len(piece.windows)
        )
        pieces = prefetch(
            tasks,
            lambda task: read(task, models[0].frontend, settings, device),
            workers,
            prepare=_use_one_thread,
            ahead=ahead,
        )
    with closing(pieces):  # whatever happens here, its threads and processes stop at once
        for piece in pieces:
            record = records.get(piece.number)
            if record is None:
                record = records[piece.number] = _Record(piece.number, complete, reduce)
            batch.add(record, piece.windows)
            record.advance(piece)
            yield from results()
    batch.run_all()
    yield from results()


def _without_numbers(results: Generator[tuple[int, _Result]]) -> Generator[_Result]:
    with closing(results):
        for _, result in results:
            yield result


def _has_name(source: object) -> bool:
    return isinstance(source, str | os.PathLike) or isinstance(getattr(source, "name", None), str)


def _use_one_thread() -> None:
    """Keeps torch in this thread from sharing its small operations out to others: waiting for them costs more."""
    torch.get_num_threads()  # the first call in a thread sets torch's own number, so it must come first
    _openmp().limit(limits=1, user_api="openmp")


@cache
def _openmp() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class _Record:
    """A source whose results are being gathered.

    Args:
        number: of its task.
        complete: where it puts itself when there is nothing more to come.
        reduce: what it keeps of values; None keeps them as they are.
    """

    def __init__(self, number: int, complete: deque[_Record], reduce: Reduce | None = None) -> None:
        self.number = number
        self.pending = 0
        self._complete = complete
        self._reduce = reduce or (lambda values: values)
        self._last: WindowChunk | None = None
        self._values: list[Tensor] = []

    def advance(self, piece: WindowChunk) -> None:
        """Takes note of a piece whose windows are in the batch."""
        if piece.last:
            self._last = piece
            if self.pending == 0 or piece.error is not None:
                self._complete.append(self)

    def take(self, values: Tensor) -> None:
        """Takes the values of its next windows."""
        self.pending -= len(values)
        if self._last is not None and self._last.error is not None:
            return
        self._values.append(self._reduce(values))
        if self._last is not None and self.pending == 0:
            self._complete.append(self)

    def result(self, batch: Batch, hop: float) -> _Result:
        """What the source gave."""
        assert self._last is not None
        if self._last.error is not None:
            self._values.clear()
            return self._last.error
        values = torch.cat(self._values) if self._values else self._reduce(batch.empty())
        start, end = window_times(0, len(values), hop)
        duration = self._last.duration or 0.0
        return Embeddings(values, torch.from_numpy(start), torch.from_numpy(end), self._last.name, duration)


class _Queue:
    """Results on their way out.

    Args:
        ordered: True gives them in the order of their numbers, 0, 1, 2, ...; False as they come.
    """

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._waiting: dict[int, _Result] = {}
        self._bytes = 0
        self._next = 0

    def put(self, number: int, result: _Result) -> Generator[tuple[int, _Result]]:
        """Takes a result; gives those that may go out now."""
        if not self._ordered:
            yield number, result
            return
        self._waiting[number] = result
        self._bytes += _size(result)
        while self._next in self._waiting:
            result = self._waiting.pop(self._next)
            self._bytes -= _size(result)
            self._next += 1
            yield self._next - 1, result

    def full(self) -> bool:
        """Whether so much waits for a result before it that no further source should be begun."""
        return self._bytes > _MAX_WAITING_BYTES


def _size(result: _Result) -> int:
    return _RECORD_BYTES + (result.values.nbytes if isinstance(result, Embeddings) else 0)
