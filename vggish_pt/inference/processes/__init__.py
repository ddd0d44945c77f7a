"""A pool of worker processes that decode, resample and run the front end; the network stays in the caller's process.

The pool is its own, for the sake of two things. A decoder that crashes on a hostile file takes its process with it, and
neither torch's ``DataLoader`` nor ``concurrent.futures.ProcessPoolExecutor`` survives that: here it costs that one
file, and the worker is replaced. And a worker is a plain new Python process, not one of ``multiprocessing``'s: these
would run the caller's script again where it has no ``if __name__ == "__main__"``, and start workers of their own.

A worker is told one source at a time, and sends its windows in pieces, so that the pieces of several sources come in
turn, however long a source is. It may be ahead by so many bytes only. For each worker a thread of the caller's process
waits for what it sends; so workers go on while the caller computes.

A decoder that hangs is not noticed: how long a file may take, nobody knows. The other workers go on without it.
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
    """Yields the pieces of all tasks: of one task in order, of several as they come.

    Args:
        tasks: read ahead only so far; always from the caller's thread. Their sources must be such that they can be
            pickled.
        frontend: says in which precision the workers compute, on the CPU.
        settings: what decides the numbers.
        workers: how many processes, at most; no more are started than there are tasks.
        ahead: how many windows, and how many tasks, the caller takes at a time. Twice as much may wait.
        hold: while it says True, no further task is begun.

    Raises:
        WorkerError: workers cannot be started.
        Exception: whatever ``tasks`` raises, after the pieces of the tasks before.
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
                    except Exception as error:  # whatever other people's classes raise
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
