"""The process's memory."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_AHEAD = 1 << 28


def keep_freed_memory() -> bool:
    """Lets this process use freed memory again, instead of giving it back to the system at once.

    glibc's malloc asks the system for each large block and returns it when it is freed. A training step frees and asks
    for gigabytes, and every page that comes anew has to be cleared first: without that, steps on a CPU are 1.1 to 1.2
    times as fast (benchmarks/README.md). The price is that the process keeps what it once needed until it ends. It
    holds for the whole process, so the package calls it in programs of its own alone (``vggish-pt train``); call it in
    yours.

    Returns:
        Whether it could be done: on Linux with glibc, unless it was done elsewhere (another malloc is preloaded).
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _AHEAD))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
