"""Actors of a Ray cluster: the embedders, which hold the model, and one that counts their attempts."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.dataset.engines.local import local_outcomes
from vggish_pt.dataset.engines.ray_blocks import unpack
from vggish_pt.dataset.outcomes import EmbeddedClip, Outcome, failure, row_columns
from vggish_pt.dataset.schema import Failure, Rows
from vggish_pt.errors import AudioError, AudioWarning, WeightsError, WorkerError
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME, weights_digest
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.model import VGGish

_MAX_ATTEMPTS = 2  # deaths of an actor on one input, after which the input fails
_MAX_DEATHS = 10  # deaths of actors in a row without an embedded input, after which the run fails
_WARNING = -1  # position of a warning, which belongs to no input


class Attempts:
    """Counter of unfinished attempts to embed a block of inputs, as an actor on the driver's machine.

    A process that dies loses its state. Its successor learns here how often the block has failed, and by which input.
    """

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._at: dict[int, int] = {}
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._in_a_row = 0
        self._started = 0

    def start(self) -> None:
        """Count the start of an actor's process."""
        self._started += 1

    def started(self) -> int:
        """Return the number of started processes."""
        return self._started

    def begin(self, block: int) -> tuple[int, list[int]]:
        """Begin a block.

        Returns:
            The number of earlier attempts, and the positions of the inputs that have failed too often.

        Raises:
            WorkerError: too many actors died in a row.
        """
        attempts = self._begun[block]
        self._begun[block] += 1
        if attempts:
            self._in_a_row += 1
            if block in self._at:
                self._deaths[block, self._at.pop(block)] += 1
        if self._in_a_row > _MAX_DEATHS:
            raise WorkerError(
                f"processes on the cluster died {self._in_a_row} times, and nothing was done between; memory may be "
                "too small (smaller batches, fewer actors), or a device is at fault"
            )
        return attempts, [at for (of, at), deaths in self._deaths.items() if of == block and deaths >= _MAX_ATTEMPTS]

    def at(self, block: int, position: int) -> None:
        """Begin an input of a block; the inputs before it are embedded."""
        if self._at.get(block, position) != position:
            self._in_a_row = 0
        self._at[block] = position

    def end(self, block: int) -> None:
        """End a block."""
        self._in_a_row = 0
        self._at.pop(block, None)
        self._begun.pop(block, None)


class Embedder:
    """Actor of the pool: it holds the model, and turns blocks of inputs into tables of outcomes.

    Its arguments have built-in types, so that another version of the package can read and refuse them.

    Args:
        job: "version", "settings", "pool", "precision", "device", "workers", "threads", "digest" and "folder" of
            the driver.
        config: ``config.json`` of the model, or Ray's reference to it.
        weights: the bytes of ``model.safetensors`` as an array, or Ray's reference to them.
        attempts: the actor that counts attempts.

    Raises:
        WorkerError: this machine has another version of the package.
        WeightsError: the weights differ from the driver's.
    """

    def __init__(self, job: dict[str, Any], config: Any, weights: Any, attempts: Any) -> None:
        import ray

        self._attempts = attempts
        ray.get(attempts.start.remote())
        if job["version"] != __version__:
            raise WorkerError(
                f"vggish_pt is of version {__version__} on {platform.node()}, of {job['version']} where the run was "
                "started; install the same version on all machines of the cluster"
            )
        with contextlib.suppress(OSError):  # relative paths start from the driver's folder, if it is shared
            os.chdir(job["folder"])
        self._settings = EmbedSettings(**job["settings"])
        self._pool, self._workers = job["pool"], job["workers"]
        self._model = _load(job, ray.get(config), ray.get(weights))

    def __call__(self, batch: Any) -> Any:
        """Embed blocks of inputs.

        Args:
            batch: ``pyarrow.Table`` with the columns block and items.

        Returns:
            The outcomes, see :func:`encode`.
        """
        import pyarrow as pa

        blocks = zip(batch["block"].to_pylist(), batch["items"].to_pylist(), strict=True)
        return pa.concat_tables(self._embed(block, unpack(data)) for block, data in blocks)

    def _embed(self, block: int, items: list[Clip]) -> Any:
        import ray

        attempts, failed = ray.get(self._attempts.begin.remote(block))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AudioWarning)
            results = list(self._results(block, items, attempts, failed))
        ray.get(self._attempts.end.remote(block))
        messages = dict.fromkeys(str(entry.message) for entry in caught if issubclass(entry.category, AudioWarning))
        return encode(block, results, list(messages))

    def _results(
        self, block: int, items: list[Clip], attempts: int, failed: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of each input and its position in the block."""
        if attempts < 2:
            # The first attempt decodes in threads. The second decodes in processes, which a decoder may crash.
            numbered = [item.at(position) for position, item in enumerate(items)]
            for outcome in self._outcomes(numbered, processes=attempts > 0):
                assert outcome.item is not None
                yield outcome.item.index, outcome
            return
        import ray

        for position, item in enumerate(items):  # not a decoder: embed one input at a time to find it
            if position in failed:
                reason = "embedding it needs more memory than there is, or crashes"
                message = f"the processes that embedded it died, {_MAX_ATTEMPTS} times; {reason}"
                yield position, failure(item.path, AudioError(message, item.path), item)
                continue
            ray.get(self._attempts.at.remote(block, position))
            for outcome in self._outcomes([item.at(position)], processes=True):
                yield position, outcome

    def _outcomes(self, items: Iterable[Clip], *, processes: bool) -> Iterator[Outcome]:
        workers = max(1, self._workers) if processes else self._workers
        results = local_outcomes(
            self._model, items, self._settings, pool=self._pool, workers=workers, processes=processes
        )
        with closing(results):
            yield from results


def _load(job: dict[str, Any], config: bytes, weights: Any) -> VGGish:
    import torch

    from vggish_pt.inference.devices import choose_device, set_precision
    from vggish_pt.model import VGGish

    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory(prefix="vggish_pt-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / CONFIG_NAME).write_bytes(config)
        (folder / WEIGHTS_NAME).write_bytes(weights)
        if (found := weights_digest(folder)) != job["digest"]:
            raise WeightsError(
                f"the weights that {platform.node()} got have the SHA-256 {found}, not {job['digest']}; start again"
            )
        model = VGGish.from_pretrained(folder, device=choose_device(job["device"]))
    return set_precision(model, job["precision"])


def encode(block: int, results: Iterable[tuple[int, Outcome]], messages: Iterable[str] = ()) -> Any:
    """Encode the outcomes of a block as a table with a row for each.

    Args:
        block: number of the block.
        results: positions of inputs, and their outcomes.
        messages: warnings.

    Returns:
        ``pyarrow.Table``.
    """
    import pyarrow as pa

    encoded: list[dict[str, Any]] = []
    values: list[np.ndarray[Any, Any]] = []
    for position, outcome in results:
        row: dict[str, Any] = {"place": position}
        if isinstance(outcome, EmbeddedClip):
            rows = outcome.rows
            row |= {"windows": outcome.windows, "duration": outcome.duration, "shape": list(rows.embedding.shape)}
            row |= {"start": rows.start, "end": rows.end, "length": rows.embedding.size}
            values.append(rows.embedding.reshape(-1))
        else:
            row |= {"type": outcome.type, "reason": outcome.reason}
        encoded.append(row)
    encoded += [{"place": _WARNING, "reason": text} for text in messages]
    offsets = np.cumsum([0, *(row.get("length", 0) for row in encoded)], dtype=np.int64)
    dtype = values[0].dtype if values else np.dtype(np.float32)
    flat = np.concatenate(values) if values else np.zeros(0, dtype)
    types = {
        "place": pa.int32(),
        "windows": pa.int64(),
        "duration": pa.float64(),
        "shape": pa.list_(pa.int64()),
        "start": pa.list_(pa.float64()),
        "end": pa.list_(pa.float64()),
        "type": pa.string(),
        "reason": pa.string(),
    }
    columns = {name: pa.array([row.get(name) for row in encoded], kind) for name, kind in types.items()}
    columns["embedding"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
    return pa.table({"block": pa.array([block] * len(encoded), pa.int64()), **columns})


def decode(row: dict[str, Any], item: Clip) -> Outcome:
    """Decode the outcome of an input.

    Args:
        row: a row of :func:`encode`'s table, as Arrow scalars by name.
        item: the input.
    """
    if row["type"].is_valid:
        return Failure(path_text(item.path), row["reason"].as_py(), row["type"].as_py(), item)
    # Copied: Ray's arrays are valid only while it is connected.
    start, end, values = (np.array(row[name].values.to_numpy()) for name in ("start", "end", "embedding"))
    window = np.arange(len(start), dtype=np.int32)
    duration = row["duration"].as_py()
    values = values.reshape(row["shape"].as_py())
    rows = Rows(path_text(item.path), window, start, end, values, row_columns(item), duration)
    return EmbeddedClip(item, rows, row["windows"].as_py(), duration)
