"""Runs into dataset folders without a model, for inputs with known results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset import outputs as output
from vggish_pt.dataset.outcomes import EmbeddedClip
from vggish_pt.dataset.outputs import Failure, Rows, Schema, Session

METADATA = {
    "version": "1",
    "weights": {"name": "w", "sha256": "0" * 64, "final_relu": False},
    "settings": {"hop": 0.96, "pool": "none"},
}
SCHEMA = Schema((128,), "float32", METADATA)


def make_items(count: int, first: int = 0, **more: Any) -> list[Clip]:
    return [Clip(f"größe/{first + i:04d}.wav", i, **more) for i in range(count)]


def done(item: Clip, windows: int = 3) -> EmbeddedClip:
    seed = int.from_bytes(item.key[:4], "little")
    values = np.random.default_rng(seed).standard_normal((windows, 128)).astype(np.float32)
    window = np.arange(windows, dtype=np.int32)
    columns = {**item.columns, "segment_start": item.start, "segment_end": item.end}
    made = Rows(item.path, window, window * 0.96, window * 0.96 + 0.975, values, columns, windows * 0.96)
    return EmbeddedClip(item, made, windows, made.duration)


def fails(item: Clip) -> bool:
    return item.path.endswith("7.wav")


def outcome(item: Clip, *, broken: Callable[[Clip], bool] = fails) -> Any:
    return Failure(item.path, "broken", "AudioError", item) if broken(item) else done(item)


class Killed(BaseException):
    """Represents the end of a process: nothing is written afterwards."""


def run(
    folder: Path | str,
    items: Sequence[Clip],
    *,
    schema: Schema = SCHEMA,
    stop: int | None = None,
    failures: Sequence[Failure] = (),
    retry_errors: bool = False,
    broken: Callable[[Clip], bool] = fails,
    order: Callable[[Iterable[Clip]], Iterable[Clip]] = list,
    **options: Any,
) -> list[str]:
    """Run, and return the paths that were embedded."""
    worked: list[str] = []
    with output.open_run(output.open_store(str(folder)), schema, Session(["x"]), **options) as opened:
        pending = opened.plan(items, failures, retry_errors=retry_errors)
        assert len(pending) == len(list(pending))
        for item in order(pending):
            if len(worked) == stop:
                opened._done, opened._failed = [], []  # as if the process had ended
                raise Killed
            worked.append(item.path)
            opened.add(outcome(item, broken=broken))
        opened.finish()
    return worked


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def rows(folder: Path) -> dict[tuple[str, int], list[float]]:
    found: dict[tuple[str, int], list[float]] = {}
    for part in parts(folder):
        for row in pq.read_table(part).to_pylist():
            key = (row["path"], row["window"])
            assert key not in found
            found[key] = row["embedding"]
    return found


def expected(items: Iterable[Clip]) -> dict[tuple[str, int], list[float]]:
    all_done = [done(item) for item in items if not fails(item)]
    return {(each.item.path, i): row for each in all_done for i, row in enumerate(each.rows.embedding.tolist())}


def errors(folder: Path) -> list[str]:
    if not (folder / "_errors.parquet").exists():
        return []
    return [row["path"] for row in pq.read_table(folder / "_errors.parquet").to_pylist()]


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "_run.json").read_text())
    return found
