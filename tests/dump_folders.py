"""Write outputs of ``vggish-pt embed`` from numbers instead of sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.outcomes import EmbeddedClip
from vggish_pt.dataset.outputs import Failure, Rows, Schema, Session, open_output, open_run, open_store

METADATA = {
    "version": "0.1",
    "weights": {"name": "audioset", "license": "Apache-2.0", "sha256": "ab" * 32, "final_relu": False},
    "settings": {"hop": 0.96, "pad": "short", "layer": "embedding", "postprocess": None, "resampler": "soxr"}
    | {"allow_truncated": False, "pool": "none", "precision": "fp32"},
    "shape": [128],
}


def make_schema(
    shape: tuple[int, ...] = (128,), dtype: str = "float32", columns: Any = None, **settings: Any
) -> Schema:
    """Return a schema with some settings changed."""
    metadata = {**METADATA, "settings": {**METADATA["settings"], **settings}, "shape": list(shape)}
    return Schema(shape, dtype, metadata, columns)


def done(
    path: str, values: np.ndarray, index: int = 0, columns: Mapping[str, Any] | None = None, **part: float
) -> EmbeddedClip:
    """Return the outcome of an embedded file."""
    count = len(values)
    start = np.arange(count) * 0.96 + part.get("start", 0)
    item = Clip(path, index, columns=columns or {}, **part)
    columns = {**item.columns, "segment_start": item.start, "segment_end": item.end}
    seconds = count * 0.96 + 0.015
    rows = Rows(path, np.arange(count, dtype=np.int32), start, start + 0.975, values, columns, seconds)
    return EmbeddedClip(item, rows, count, seconds)


def failed(path: str, reason: str = "it is empty", kind: str = "AudioError", index: int = 0) -> Failure:
    """Return the outcome of a failed file."""
    return Failure(path, reason, kind, Clip(path, index))


def write_folder(
    folder: Path | str,
    outcomes: Sequence[EmbeddedClip | Failure],
    schema: Schema | None = None,
    *,
    parts: int = 1,
    sessions: int = 1,
    finish: bool = True,
) -> None:
    """Write a dataset folder.

    Args:
        folder: the folder.
        outcomes: outcomes of the inputs, whose indexes are set to their positions.
        schema: the schema of the rows.
        parts: number of commits in a session.
        sessions: number of runs of the command.
        finish: True completes the last session.
    """
    schema = schema or make_schema()
    items = []
    for place, outcome in enumerate(outcomes):
        object.__setattr__(outcome.item, "index", place)
        items.append(outcome.item)
    ends = [round(len(outcomes) * (i + 1) / (parts * sessions)) for i in range(parts * sessions)]
    first = 0
    for session in range(sessions):
        run_session = Session(["sounds"], {"engine": "local", "device": "cpu", "workers": 1, "batch_size": 32})
        with open_run(open_store(str(folder)), schema, run_session, checkpoint=1e9) as run:
            run.plan(items)
            for end in ends[session * parts : (session + 1) * parts]:
                for outcome in outcomes[first:end]:
                    run.add(outcome)
                run.commit()
                first = end
            if finish and session == sessions - 1:
                run.finish()


def write_file(
    path: Path, outcomes: Sequence[EmbeddedClip], schema: Schema | None = None, failures: Sequence[Failure] = ()
) -> None:
    """Write a single file."""
    with open_output(path, path.suffix.lstrip("."), schema or make_schema()) as output:  # type: ignore[arg-type]
        for outcome in outcomes:
            output.write(outcome.rows)
        output.finish(failures)
