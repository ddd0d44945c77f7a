"""Record of a dataset folder, ``_run.json``: state, settings, counts, versions and timing.

The record is for the reader. It does not decide which inputs are done: the parts do
(:mod:`vggish_pt.dataset.outputs.part`). Times are seconds since 1970 by the machine's clock. ``elapsed`` is measured
with a monotonic clock, so that a change of the clock has no effect on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vggish_pt.audio.clip import path_text
from vggish_pt.dataset.schema import Schema
from vggish_pt.errors import OutputError
from vggish_pt.utils.mappings import changes
from vggish_pt.utils.remote import is_address, redacted
from vggish_pt.utils.versions import versions

RUN_NAME = "_run.json"
FORMAT = 1

_MAX_NAMED = 1000
_MAX_SAMPLES = 4000
_MAX_BYTES = 1 << 26


@dataclass
class Counts:
    """Counts of a folder.

    Attributes:
        inputs: number of inputs: embedded, failed and pending.
        files: number of inputs that were embedded.
        windows: number of their windows.
        seconds: seconds of audio.
        errors: number of inputs that failed.
        repeated: number of inputs that the latest run named more than once.
        passed_over: number of files that the latest run skipped because they are not audio.
    """

    inputs: int = 0
    files: int = 0
    windows: int = 0
    seconds: float = 0.0
    errors: int = 0
    repeated: int = 0
    passed_over: int = 0


@dataclass
class Session:
    """One run of the command.

    Attributes:
        named: the inputs as given by the user.
        options: options that change the speed only: device, engine, workers, batch size.
        started: time of its start.
        ended: time of its end, or of its latest write.
        elapsed: its duration in seconds.
        files: number of inputs that it embedded.
        errors: number of inputs that failed in it.
        versions: see :func:`vggish_pt.utils.versions.versions`.
    """

    named: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    elapsed: float = 0.0
    files: int = 0
    errors: int = 0
    versions: dict[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        if len(self.named) > _MAX_NAMED:
            more = len(self.named) - _MAX_NAMED
            self.named = [*self.named[:_MAX_NAMED], f"… and {more} more"]


class RunRecord:
    """Contents of ``_run.json``.

    Args:
        schema: the schema of the rows.
        earlier: the record of the earlier runs, from :func:`read_record`.
    """

    def __init__(self, schema: Schema, earlier: Mapping[str, Any] | None = None) -> None:
        timing = (earlier or {}).get("timing") or {}
        self._schema = schema
        self.counts = Counts()
        self.sessions: list[dict[str, Any]] = list(timing.get("sessions") or [])
        self._progress: list[dict[str, Any]] = list(timing.get("progress") or [])
        self._before = float(timing.get("elapsed") or 0.0)

    def last_versions(self) -> dict[str, Any] | None:
        """Return the versions of the run before this one."""
        return dict(self.sessions[-1].get("versions") or {}) if self.sessions else None

    def sample(self, session: Session) -> None:
        """Append the current counts to the progress."""
        counts = self.counts
        self._progress.append(
            {
                "time": round(session.ended, 3),
                "elapsed": round(self._before + session.elapsed, 3),
                "files": counts.files,
                "windows": counts.windows,
                "seconds": round(counts.seconds, 3),
                "errors": counts.errors,
            }
        )
        if len(self._progress) > _MAX_SAMPLES:  # bounds the size of the file
            self._progress = self._progress[::2]

    def text(self, session: Session, *, complete: bool) -> str:
        """Return the record as JSON."""
        schema, metadata = self._schema, self._schema.metadata
        sessions = [*self.sessions, asdict(session)]
        record = {
            "format": FORMAT,
            "state": "complete" if complete else "running",
            "inputs": session.named,
            "weights": metadata.get("weights"),
            "settings": metadata.get("settings"),
            "shape": list(schema.shape),
            "dtype": schema.dtype,
            "columns": column_types(schema.columns),
            "versions": session.versions,
            "counts": asdict(self.counts),
            "timing": {
                "started": sessions[0].get("started"),
                "ended": session.ended,
                "elapsed": self._before + session.elapsed,
                "progress": self._progress,
                "sessions": sessions,
            },
        }
        return json.dumps(record, indent=1) + "\n"


def column_types(columns: Any) -> dict[str, str]:
    """Return the types of the columns of a ``pyarrow.Schema``, by name; of None, no column."""
    return {field.name: str(field.type) for field in columns or ()}


def read_record(raw: bytes, folder: str) -> dict[str, Any]:
    """Read ``_run.json``.

    Raises:
        OutputError: the file is damaged, or its format is newer than this version of the package.
    """
    path = f"{folder.rstrip('/')}/{RUN_NAME}"
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError("too long")
        record = json.loads(raw)
        version = record["format"]
        if not isinstance(version, int):
            raise ValueError("its format is not a number")
        if version <= FORMAT:
            _check_timing(record["timing"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{path}: is damaged ({error}); remove it: the parts themselves say which inputs are done"
        ) from None
    if version > FORMAT:
        raise OutputError(f"{path}: has format {version}, this version knows up to {FORMAT}; update vggish_pt")
    return dict(record)


def _check_timing(timing: Mapping[str, Any]) -> None:
    for name in ("sessions", "progress"):
        entries = timing[name]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{name} is not a list of objects")
    for session in timing["sessions"]:
        dict(session["versions"])
    float(timing["elapsed"])


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences of the settings of two records or parts, each as one phrase.

    Args:
        old: ``weights``, ``settings`` and ``columns`` of the folder.
        new: those of this run.
    """
    found = []
    weights = [dict(record.get("weights") or {}) for record in (old, new)]
    identity = "sha256" if all(entry.get("sha256") for entry in weights) else "name"
    if any(weights[0].get(name) != weights[1].get(name) for name in (identity, "final_relu")):
        found.append(f"weights: {_weights(weights[0])} in the folder, {_weights(weights[1])} now")
    for kind, prefix in (("settings", ""), ("columns", "column ")):
        changed = changes(old.get(kind) or {}, new.get(kind) or {}, missing="absent")
        found += [f"{prefix}{name}: {before} in the folder, {now} now" for name, before, now in changed]
    return found


def _weights(weights: Mapping[str, Any]) -> str:
    relu = ", final ReLU" if weights.get("final_relu") else ""
    return f"{weights.get('name')} (sha256 {str(weights.get('sha256'))[:12]}{relu})"


def named_inputs(named: Sequence[str]) -> list[str]:
    """Return names as UTF-8 text without credentials."""
    return [path_text(redacted(name) if is_address(name) else name) for name in named]
