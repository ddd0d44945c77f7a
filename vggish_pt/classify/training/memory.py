"""Memory allocation of the process."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_AHEAD = 1 << 28


def keep_freed_memory() -> bool:
    """Make this process reuse freed memory, instead of returning it to the operating system at once.

    By default, glibc's malloc requests each large block from the system and returns it when it is freed. A training
    step frees and requests gigabytes, and the system must clear every new page. Without that, steps on a CPU are 1.1
    to 1.2 times as fast (benchmarks/README.md), but the process keeps its peak memory until it ends. The setting
    applies to the whole process. ``vggish-pt train`` calls this function; the package's Python functions do not.

    Returns:
        True if the setting was made; False without glibc, or if another malloc is preloaded.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _AHEAD))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
