"""Start and end of a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any, cast

from vggish_pt.errors import WorkerError

_PIPE_BYTES = 1 << 20

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from vggish_pt.inference.processes.child import main; main()"
)


def start_process() -> subprocess.Popen[bytes]:
    """Start a worker with the import path of this process. It does not run the caller's script.

    Raises:
        WorkerError: there is no interpreter to start.
        OSError: the system cannot start a process.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise WorkerError("worker processes need a Python interpreter (sys.executable), and there is none; use threads")
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **one_thread, "CUDA_VISIBLE_DEVICES": ""}  # workers use no CUDA device
    flags = ["-P", *(["-X", "utf8"] if sys.flags.utf8_mode else [])]
    # Workers ignore Ctrl-C; this process ends them.
    options: dict[str, Any] = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # in this thread, and inherited by the worker
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        **options,
    )
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(cast("Any", process.stdout), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
    with contextlib.suppress(OSError):  # the worker has ended already; its reader notices
        cast("Any", process.stdin).write(json.dumps(path).encode() + b"\n")
    return process


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a worker that has ended."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast("Any", pipe).close()


def how_it_ended(code: int) -> str:
    """Describe a return code: the signal's name, or the exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
