"""Lock of a dataset folder: it refuses a second run while one writes.

On a disk it is the operating system's file lock, which ends with the process. On object storage, for which no
maintained library offers a lock, it is a file with a heartbeat. A killed run leaves that file behind; after
:data:`STALE_SECONDS` without a heartbeat another run may take the lock (tests/dataset/outputs/test_address.py).
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
"""Seconds without a heartbeat after which a run counts as dead. The clocks of the machines must agree within that."""

_READINGS = 10
# Wait between writing a lock and reading it again, on storage that cannot create a file exclusively.
_SETTLE_SECONDS = 1.0


class Lock(Protocol):
    """Exclusive right to write to a folder."""

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutputError: another run holds it.
        """

    def check(self) -> None:
        """Check that this run still holds the lock; called before each write.

        Raises:
            OutputError: another run has taken it.
        """

    def release(self) -> None:
        """Release the lock."""


class FileLock:
    """The operating system's lock on a file in the folder.

    The file stays after a run: if it were removed, two runs could lock different files of the same name.

    Args:
        path: the file.
        folder: the folder's name, for messages.
    """

    def __init__(self, path: Path, folder: str) -> None:
        from filelock import FileLock as SystemLock

        self._folder = folder
        self._lock = SystemLock(path)

    def acquire(self) -> None:
        """Take the lock."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{self._folder}: another run is writing there; wait until it ends, or choose another output"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise OutputError(f"{self._folder}: cannot be locked ({storage_reason(error)})") from error

    def check(self) -> None:
        """Do nothing: the lock is held until the process ends."""

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


class ObjectLock:
    """A file that names the run that writes to the folder, with the time of its last heartbeat.

    Args:
        fs: the fsspec file system.
        path: the file.
        folder: the folder's name, for messages.
    """

    def __init__(self, fs: Any, path: str, folder: str) -> None:
        self._fs, self._path, self._folder = fs, path, folder
        self._token = secrets.token_hex(8)
        self._held = False
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._heartbeat: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock."""
        try:
            if not self._create():
                self._take_over()
        except OutputError:
            raise
        except Exception as error:  # each library raises its own classes
            raise OutputError(f"{self._folder}: cannot be locked ({storage_reason(error)})") from error
        self._held = True
        self._heartbeat = threading.Thread(target=self._beat, name="vggish-pt-lock", daemon=True)
        self._heartbeat.start()

    def _create(self) -> bool:
        try:
            create(self._fs, self._path, self._content())
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Take the lock of a dead run.

        Raises:
            OutputError: the run that holds the lock is alive.
        """
        owner = self._owner()
        if owner is not None and time.time() - owner["time"] < STALE_SECONDS:
            raise OutputError(
                f"{self._folder}: another run is writing there (on {owner['host']}, process {owner['process']}); wait "
                f"until it ends, or, if it was killed, for {STALE_SECONDS / 60:.0f} minutes"
            )
        self._fs.pipe_file(self._path, self._content())
        time.sleep(_SETTLE_SECONDS)  # several runs may take over at the same time: the last one to write wins
        self._check()

    def check(self) -> None:
        """Check that this run still holds the lock."""
        try:
            self._check()
        except OutputError:
            raise
        except Exception as error:
            raise OutputError(f"{self._folder}: its lock cannot be read ({storage_reason(error)})") from error

    def _check(self) -> None:
        with self._writing:
            owner = self._owner()
        if owner is None or owner["token"] != self._token:
            raise OutputError(f"{self._folder}: another run has taken over there; this one stops")

    def release(self) -> None:
        """Release the lock."""
        self._stop.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        if self._held:
            self._held = False
            with contextlib.suppress(Exception):  # a lock that stays becomes stale
                self._check()
                self._fs.rm_file(self._path)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception), self._writing:  # the next heartbeat makes up for a failed one
                if (self._owner() or {}).get("token") != self._token:
                    return
                self._fs.pipe_file(self._path, self._content())

    def _content(self) -> bytes:
        owner = {"token": self._token, "host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
        return json.dumps(owner).encode()

    def _owner(self) -> dict[str, Any] | None:
        """Return the contents of the lock; None if there is no lock, or an unreadable one."""
        for _ in range(_READINGS):
            self._fs.invalidate_cache()
            try:
                lock = json.loads(self._fs.cat_file(self._path))
                return {"token": lock["token"], "host": lock["host"], "process": lock["process"], "time": +lock["time"]}
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):
                time.sleep(0.1)  # some storage shows a file while it is being written
        return None


def create(fs: Any, path: str, data: bytes) -> None:
    """Upload a new file; in one step where the storage supports that.

    Raises:
        FileExistsError: the file exists.
    """
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        raise
    except Exception:  # the storage, or its library, has no such mode
        fs.invalidate_cache()
        if fs.exists(path):
            raise FileExistsError("is there already") from None
        fs.pipe_file(path, data)


def storage_reason(error: Exception) -> str:
    """Return the reason of an error as one line; of an error of the operating system, its own text."""
    if isinstance(error, FileExistsError):
        return "it is there already; is another run writing there?"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror
    return remote_reason(error)
