"""TensorBoard's log of a run, written with TensorBoard's own records and protocol buffers.

``torch.utils.tensorboard.SummaryWriter``, which Lightning's TensorBoardLogger uses too, imports TensorFlow if that is
installed: 11 seconds and its log messages on standard error.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class EventsFile:
    """One file of TensorBoard events, flushed after each write.

    Args:
        folder: existing folder for the file.
        purge_step: TensorBoard ignores the events of earlier files in the folder from this step on; None keeps all.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = Event
        self._summary: Any = Summary
        name = f"events.out.tfevents.{time.time_ns() // 1_000_000_000:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records: Any = RecordWriter(self._file)
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            begun = SessionLog(status=SessionLog.START)
            self._put(Event(wall_time=time.time(), step=purge_step, session_log=begun))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars by name."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._put(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def _put(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()

    def __enter__(self) -> EventsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
