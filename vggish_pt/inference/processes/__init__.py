"""Worker processes that decode, resample and run the front end; the network stays in the caller's process.

Own pool, for two reasons. A decoder that crashes on a hostile file takes its process with it. Here this costs that one
file and the worker is replaced; torch's ``DataLoader`` and ``concurrent.futures.ProcessPoolExecutor`` fail as a whole
(``test_a_deadly_file_costs_only_itself``). And workers of ``multiprocessing`` with the start method "spawn" run the
caller's script again, which fails without ``if __name__ == "__main__"``. Pebble survives a crash, but has the same
workers, and returns one result for each task, so that a file of three hours would be one message.

A worker loads one clip at a time and sends the windows in chunks, so that chunks of several clips arrive in turn. The
bytes that a worker may send ahead of the caller are limited. A thread of the caller's process for each worker receives
its messages, so that workers continue while the caller computes.

Limit: there is no timeout. A decoder that hangs blocks its worker; the other workers continue.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable

from vggish_pt import constants as c
from vggish_pt.audio import Clip
from vggish_pt.errors import AudioError, SettingsError
from vggish_pt.inference.loading import WindowChunk
from vggish_pt.inference.processes.pool import Pool, _Task
from vggish_pt.inference.processes.wire import MAX_WINDOWS
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.nn.frontend import LogMel
from vggish_pt.utils.text import joined_lines

__all__ = ["read_in_processes"]

_WINDOW_BYTES = c.EXAMPLE_FRAMES * c.MEL_BANDS * 4
_MAX_AHEAD_BYTES = 1 << 28


def read_in_processes(
    clips: Iterable[Clip],
    frontend: LogMel,
    settings: EmbedSettings,
    workers: int,
    *,
    ahead: int = 256,
    hold: Callable[[], bool] = lambda: False,
) -> Generator[WindowChunk]:
    """Load clips in worker processes, and yield their chunks. Chunks of one clip come in order, clips in any order.

    Args:
        clips: clips with different indices, whose sources can be pickled. The iterable is read a limited number ahead,
            in the caller's thread.
        frontend: front end with the precision in which the workers compute, on the CPU.
        settings: settings of the embedding.
        workers: largest number of processes; there are not more than clips.
        ahead: number of windows, and of clips, that the caller processes at a time. Twice as many may wait.
        hold: no further clip is started while this returns True.

    Raises:
        SettingsError: a front end of another class.
        WorkerError: workers cannot be started.
        Exception: any error of the iterable ``clips``, after the chunks of the clips before it.
    """
    if type(frontend) is not LogMel:
        raise SettingsError("worker processes compute the package's own front end only; use threads")
    ahead_bytes = min(2 * ahead * _WINDOW_BYTES, _MAX_AHEAD_BYTES)
    allowance = max(ahead_bytes // workers, MAX_WINDOWS * _WINDOW_BYTES)
    dtype = None if frontend.dtype is None else str(frontend.dtype).removeprefix("torch.")
    pool = Pool(workers, (dtype, settings, allowance))
    iterator = iter(clips)
    failure: Exception | None = None
    more = True
    try:
        while True:
            while more and (pool.open == 0 or (pool.wants(2 * workers + ahead) and not hold())):
                try:
                    clip = next(iterator)
                except StopIteration:
                    more = False
                except Exception as error:
                    more, failure = False, error
                else:
                    try:
                        data = pickle.dumps(clip, pickle.HIGHEST_PROTOCOL)
                    except Exception as error:  # classes of the user may raise anything
                        yield WindowChunk(clip.index, error=_unsendable(clip.name, error))
                    else:
                        pool.submit(_Task(clip.index, clip.name, data))
            if pool.open == 0:
                break
            yield pool.take()
    finally:
        pool.stop()
    if failure is not None:
        raise failure


def _unsendable(label: str, error: Exception) -> AudioError:
    return AudioError(f"{label}: cannot be sent to a worker process ({joined_lines(error)}); use threads", label)
