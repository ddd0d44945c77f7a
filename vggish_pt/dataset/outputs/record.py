"""``_run.json``: what a dataset folder holds, what made it, and when.

It tells; it decides nothing: what is done is read from the parts (:mod:`vggish_pt.dataset.outputs.part`). Times are
seconds since 1970 by the machine's clock, but ``elapsed``, which counts the seconds that runs took, whatever the clock
did.
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
from vggish_pt.utils.remote import is_address, redacted
from vggish_pt.utils.versions import versions

RUN_NAME = "_run.json"
FORMAT = 1

_MAX_NAMED = 1000
_MAX_SAMPLES = 4000
_MAX_BYTES = 1 << 26


@dataclass
class Counts:
    """What a folder holds.

    Attributes:
        inputs: that it is about: files, errors, and what is still to do.
        files: embedded.
        windows: that they gave.
        seconds: of audio.
        errors: inputs that failed.
        repeated: inputs that were named more than once in the latest run.
        passed_over: files that the latest run met but did not take for audio.
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
        named: the inputs as the user named them.
        options: what changes the speed only: device, engine, workers, batch size.
        started: when it began.
        ended: when it ended, or last wrote.
        elapsed: seconds that it took.
        files: how many it embedded.
        errors: how many inputs failed in it.
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
    """The contents of ``_run.json``.

    Args:
        layout: what the rows are.
        earlier: the record of the runs before, as :func:`read_record` gives it.
    """

    def __init__(self, layout: Schema, earlier: Mapping[str, Any] | None = None) -> None:
        timing = (earlier or {}).get("timing") or {}
        self._layout = layout
        self.counts = Counts()
        self.sessions: list[dict[str, Any]] = list(timing.get("sessions") or [])
        self._progress: list[dict[str, Any]] = list(timing.get("progress") or [])
        self._before = float(timing.get("elapsed") or 0.0)

    def last_versions(self) -> dict[str, Any] | None:
        """The versions that the latest run before this one had."""
        return dict(self.sessions[-1].get("versions") or {}) if self.sessions else None

    def sample(self, session: Session) -> None:
        """Notes how far things are."""
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
        if len(self._progress) > _MAX_SAMPLES:  # so that the file stays small, however long runs take
            self._progress = self._progress[::2]

    def text(self, session: Session, *, complete: bool) -> str:
        """The record as JSON."""
        layout, metadata = self._layout, self._layout.metadata
        sessions = [*self.sessions, asdict(session)]
        record = {
            "format": FORMAT,
            "state": "complete" if complete else "running",
            "inputs": session.named,
            "weights": metadata.get("weights"),
            "settings": metadata.get("settings"),
            "shape": list(layout.shape),
            "dtype": layout.dtype,
            "columns": column_types(layout),
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


def column_types(layout: Schema) -> dict[str, str]:
    """The types of the columns beside the usual ones, by name."""
    return {field.name: str(field.type) for field in layout.extra}


def read_record(raw: bytes, folder: str) -> dict[str, Any]:
    """Reads ``_run.json``.

    Raises:
        OutputError: it is damaged, or of a newer version of the format.
    """
    place = f"{folder.rstrip('/')}/{RUN_NAME}"
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError("too long")
        record = json.loads(raw)
        version = record["format"]
        if not isinstance(version, int):
            raise ValueError("its format is no number")
        if version <= FORMAT:
            _check_timing(record["timing"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{place}: is damaged ({error}); remove it: what is done stands in the parts themselves"
        ) from None
    if version > FORMAT:
        raise OutputError(f"{place}: has format {version}, this version knows up to {FORMAT}; update vggish_pt")
    return dict(record)


def _check_timing(timing: Mapping[str, Any]) -> None:
    for name in ("sessions", "progress"):
        entries = timing[name]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{name} is no list of objects")
    for session in timing["sessions"]:
        dict(session["versions"])
    float(timing["elapsed"])


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two records or parts say differently of how embeddings were made, each as one phrase.

    Args:
        old: ``weights``, ``settings`` and ``columns`` of the folder.
        new: the same of this run.
    """
    found = []
    weights = [dict(each.get("weights") or {}) for each in (old, new)]
    identity = "sha256" if all(each.get("sha256") for each in weights) else "name"
    if any(weights[0].get(name) != weights[1].get(name) for name in (identity, "final_relu")):
        found.append(f"weights: {_weights(weights[0])} in the folder, {_weights(weights[1])} now")
    for kind in ("settings", "columns"):
        before, now = dict(old.get(kind) or {}), dict(new.get(kind) or {})
        names = [*now, *(name for name in before if name not in now)]
        prefix = "column " if kind == "columns" else ""
        found += [
            f"{prefix}{name}: {_shown(before, name)} in the folder, {_shown(now, name)} now"
            for name in names
            if _shown(before, name) != _shown(now, name)
        ]
    return found


def _weights(weights: Mapping[str, Any]) -> str:
    relu = ", final ReLU" if weights.get("final_relu") else ""
    return f"{weights.get('name')} (sha256 {str(weights.get('sha256'))[:12]}{relu})"


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "absent"


def named_inputs(named: Sequence[str]) -> list[str]:
    """Names as a record can hold them: as UTF-8, and without credentials."""
    return [path_text(redacted(name) if is_address(name) else name) for name in named]
