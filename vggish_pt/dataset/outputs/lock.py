"""What keeps a second run out of a dataset folder.

On a disk the system's own file lock, which ends with the process, however it ends. On object storage a file with a
heartbeat: a run that was killed leaves it, and after :data:`STALE_SECONDS` without a beat another may take over.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from vggish_pt.errors import OutputError
from vggish_pt.utils.retries import remote_reason

LOCK_NAME = ".vggish-pt.lock"

BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
"""Without a beat for so long, a run counts as dead. The clocks of machines that share a folder must agree that far."""

_READINGS = 10
# Between writing a lock where the store cannot create a file exclusively, and looking whose it became.
_SETTLE_SECONDS = 1.0


class Lock(Protocol):
    """The right to write to a folder."""

    def acquire(self) -> None:
        """Takes it.

        Raises:
            OutputError: another run has it.
        """

    def check(self) -> None:
        """Makes sure that it is still ours; called before each file that is written.

        Raises:
            OutputError: another run has taken over.
        """

    def release(self) -> None:
        """Gives it back."""


class FileLock:
    """The system's lock on a file in the folder. The file stays: removing it would let two runs lock different files.

    Args:
        path: the file.
        folder: the folder's name.
    """

    def __init__(self, path: Path, folder: str) -> None:
        from filelock import FileLock as SystemLock

        self._folder = folder
        self._lock = SystemLock(path)

    def acquire(self) -> None:
        """Takes it."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{self._folder}: another run is writing there; wait until it ends, or choose another output"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise OutputError(f"{self._folder}: cannot be locked ({why(error)})") from error

    def check(self) -> None:
        """It cannot be lost while the process runs."""

    def release(self) -> None:
        """Gives it back."""
        self._lock.release()


class ObjectLock:
    """A file that says who writes to the folder, and when that run last said so.

    Args:
        fs: the fsspec file system.
        path: the file.
        folder: the folder's name.
    """

    def __init__(self, fs: Any, path: str, folder: str) -> None:
        self._fs, self._path, self._folder = fs, path, folder
        self._token = secrets.token_hex(8)
        self._held = False
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._beating: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes it."""
        try:
            if not self._take():
                self._take_over()
        except OutputError:
            raise
        except Exception as error:  # each library has its own
            raise OutputError(f"{self._folder}: cannot be locked ({why(error)})") from error
        self._held = True
        self._beating = threading.Thread(target=self._beat, name="vggish-pt-lock", daemon=True)
        self._beating.start()

    def _take(self) -> bool:
        try:
            create(self._fs, self._path, self._content())
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Takes the lock of a run that is dead, or refuses."""
        owner = self._owner()
        if owner is not None and time.time() - owner["time"] < STALE_SECONDS:
            raise OutputError(
                f"{self._folder}: another run is writing there (on {owner['host']}, process {owner['process']}); wait "
                f"until it ends, or, if it was killed, for {STALE_SECONDS / 60:.0f} minutes"
            )
        self._fs.pipe_file(self._path, self._content())
        time.sleep(_SETTLE_SECONDS)  # others may have found it dead at the same time: the last to write has it
        self._check()

    def check(self) -> None:
        """Makes sure that it is still ours."""
        try:
            self._check()
        except OutputError:
            raise
        except Exception as error:
            raise OutputError(f"{self._folder}: its lock cannot be read ({why(error)})") from error

    def _check(self) -> None:
        with self._writing:
            owner = self._owner()
        if owner is None or owner["token"] != self._token:
            raise OutputError(f"{self._folder}: another run has taken over there; this one stops")

    def release(self) -> None:
        """Gives it back."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        if self._held:
            self._held = False
            with contextlib.suppress(Exception):  # it goes stale by itself
                self._check()
                self._fs.rm_file(self._path)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception), self._writing:  # a beat that fails is made up for by the next
                if (self._owner() or {}).get("token") != self._token:
                    return
                self._fs.pipe_file(self._path, self._content())

    def _content(self) -> bytes:
        owner = {"token": self._token, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
        return json.dumps(owner).encode()

    def _owner(self) -> dict[str, Any] | None:
        """What the lock says; None if there is none, or one that says nothing."""
        for _ in range(_READINGS):
            self._fs.invalidate_cache()
            try:
                told = json.loads(self._fs.cat_file(self._path))
                return {"token": told["token"], "host": told["host"], "process": told["process"], "time": +told["time"]}
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):
                time.sleep(0.1)  # where uploads can be seen half-way, it may be being written
        return None


def create(fs: Any, path: str, data: bytes) -> None:
    """Uploads a file that is not there yet; in one step where the store can do that.

    Raises:
        FileExistsError: it is there.
    """
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        raise
    except Exception:  # the store, or its library, has no such mode
        fs.invalidate_cache()
        if fs.exists(path):
            raise FileExistsError("is there already") from None
        fs.pipe_file(path, data)


def why(error: Exception) -> str:
    """The reason of an error in a line: the system's own words, if it comes from there."""
    if isinstance(error, FileExistsError):
        return "it is there already; is another run writing there?"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror
    return remote_reason(error)
