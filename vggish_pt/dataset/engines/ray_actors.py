"""What runs on a Ray cluster's machines: actors that hold the model, and one that counts what they begin."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.dataset.engines.local import local_outcomes
from vggish_pt.dataset.outcomes import EmbeddedClip, Outcome, failure, row_columns
from vggish_pt.dataset.schema import Failure, Rows
from vggish_pt.errors import AudioError, AudioWarning, WeightsError, WorkerError
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME, weights_digest
from vggish_pt.version import __version__

if TYPE_CHECKING:
    from vggish_pt.model import VGGish

_TRIES = 2  # how often an input may end the process of its actor before it is given up
_DEATHS = 10  # of actors, with nothing done between: then it is not the inputs
_WARNING = -1  # the place of a warning, which is no input


def pack(items: list[Clip]) -> bytes:
    """Inputs on their way to an actor: for 256 paths, some kilobytes.

    Raises:
        Exception: whatever other people's classes raise where they cannot be pickled.
    """
    return zlib.compress(pickle.dumps(items, pickle.HIGHEST_PROTOCOL), 1)


def unpack(data: bytes) -> list[Clip]:
    """The inputs in what :func:`pack` gave. Only for what this run itself packed."""
    items: list[Clip] = pickle.loads(zlib.decompress(data))  # noqa: S301 (our own)
    return items


class Attempts:
    """Counts how often each block of inputs was begun and not finished; lives where the driver is.

    A process that dies takes all that it knew with it. From here its successor learns that it is to be careful.
    """

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._at: dict[int, int] = {}
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._in_a_row = 0
        self._started = 0

    def start(self) -> None:
        """An actor's process has started."""
        self._started += 1

    def started(self) -> int:
        """How many have."""
        return self._started

    def begin(self, block: int) -> tuple[int, list[int]]:
        """A block is begun.

        Returns:
            How often it was begun before, and the places in it of inputs that are given up.

        Raises:
            WorkerError: one actor after the other dies.
        """
        tries = self._begun[block]
        self._begun[block] += 1
        if tries:
            self._in_a_row += 1
            if block in self._at:
                self._deaths[block, self._at.pop(block)] += 1
        if self._in_a_row > _DEATHS:
            raise WorkerError(
                f"processes on the cluster died {self._in_a_row} times, and nothing was done between; memory may be "
                "too small (smaller batches, fewer actors), or a device is at fault"
            )
        return tries, [place for (of, place), deaths in self._deaths.items() if of == block and deaths >= _TRIES]

    def at(self, block: int, place: int) -> None:
        """An input of a block is begun; what was before it is done."""
        if self._at.get(block, place) != place:
            self._in_a_row = 0
        self._at[block] = place

    def end(self, block: int) -> None:
        """A block is done."""
        self._in_a_row = 0
        self._at.pop(block, None)
        self._begun.pop(block, None)


class Embedder:
    """An actor of the pool: holds the model and turns blocks of inputs into tables of what became of them.

    Its arguments are of Python's own types, so that another version of the package can read and refuse them.

    Args:
        job: "version", "settings", "pool", "precision", "device", "workers", "threads", "digest" and "folder" of
            the driver.
        config: ``config.json`` of the model, or where Ray has it.
        weights: likewise ``model.safetensors``, bytes as an array.
        attempts: the actor that counts.

    Raises:
        WorkerError: this machine has another version of the package.
        WeightsError: the weights are not the driver's.
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
        with contextlib.suppress(OSError):  # relative paths mean what they mean there, where the folder is shared
            os.chdir(job["folder"])
        self._settings = EmbedSettings(**job["settings"])
        self._pool, self._workers = job["pool"], job["workers"]
        self._model = _load(job, ray.get(config), ray.get(weights))

    def __call__(self, batch: Any) -> Any:
        """Blocks of inputs → what became of each.

        Args:
            batch: ``pyarrow.Table`` with the columns block and items.
        """
        import pyarrow as pa

        blocks = zip(batch["block"].to_pylist(), batch["items"].to_pylist(), strict=True)
        return pa.concat_tables(self._embed(block, unpack(data)) for block, data in blocks)

    def _embed(self, block: int, items: list[Clip]) -> Any:
        import ray

        tries, given_up = ray.get(self._attempts.begin.remote(block))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AudioWarning)
            results = list(self._results(block, items, tries, given_up))
        ray.get(self._attempts.end.remote(block))
        told = dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, AudioWarning))
        return encode(block, results, list(told))

    def _results(self, block: int, items: list[Clip], tries: int, given_up: list[int]) -> Iterator[tuple[int, Outcome]]:
        """What becomes of each input, and its place in the block."""
        if tries < 2:
            # At first threads decode. Once that has cost a process, processes do, which a decoder may crash.
            places = [(place, item.at(place)) for place, item in enumerate(items)]
            for outcome in self._outcomes([item for _, item in places], processes=tries > 0):
                assert outcome.item is not None
                yield outcome.item.index, outcome
            return
        import ray

        for place, item in enumerate(items):  # it is not decoding; so one at a time, to find which
            if place in given_up:
                reason = "embedding it needs more memory than there is, or crashes"
                message = f"the processes that embedded it died, {_TRIES} times; {reason}"
                yield place, failure(item.path, AudioError(message, item.path), item)
                continue
            ray.get(self._attempts.at.remote(block, place))
            for outcome in self._outcomes([item.at(place)], processes=True):
                yield place, outcome

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


def encode(block: int, results: Iterable[tuple[int, Outcome]], told: Iterable[str] = ()) -> Any:
    """What became of a block's inputs, as a table with a row for each.

    Args:
        block: its number.
        results: outcomes and the places of their inputs.
        told: warnings.

    Returns:
        ``pyarrow.Table``.
    """
    import pyarrow as pa

    made: list[dict[str, Any]] = []
    values: list[np.ndarray[Any, Any]] = []
    for place, outcome in results:
        row: dict[str, Any] = {"place": place}
        if isinstance(outcome, EmbeddedClip):
            rows = outcome.rows
            row |= {"windows": outcome.windows, "duration": outcome.duration, "shape": list(rows.embedding.shape)}
            row |= {"start": rows.start, "end": rows.end, "length": rows.embedding.size}
            values.append(rows.embedding.reshape(-1))
        else:
            row |= {"type": outcome.type, "reason": outcome.reason}
        made.append(row)
    made += [{"place": _WARNING, "reason": text} for text in told]
    offsets = np.cumsum([0, *(row.get("length", 0) for row in made)], dtype=np.int64)
    dtype = values[0].dtype if values else np.dtype(np.float32)
    flat = np.concatenate(values) if values else np.zeros(0, dtype)
    kinds = {
        "place": pa.int32(),
        "windows": pa.int64(),
        "duration": pa.float64(),
        "shape": pa.list_(pa.int64()),
        "start": pa.list_(pa.float64()),
        "end": pa.list_(pa.float64()),
        "type": pa.string(),
        "reason": pa.string(),
    }
    columns = {name: pa.array([row.get(name) for row in made], kind) for name, kind in kinds.items()}
    columns["embedding"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
    return pa.table({"block": pa.array([block] * len(made), pa.int64()), **columns})


def decode(row: dict[str, Any], item: Clip) -> Outcome:
    """What became of an input.

    Args:
        row: of :func:`encode`'s table, as Arrow's scalars by the column's name.
        item: the input.
    """
    if row["type"].is_valid:
        return Failure(path_text(item.path), row["reason"].as_py(), row["type"].as_py(), item)
    # Copied: what Ray lends lasts no longer than the connection to it.
    start, end, values = (np.array(row[name].values.to_numpy()) for name in ("start", "end", "embedding"))
    window = np.arange(len(start), dtype=np.int32)
    duration = row["duration"].as_py()
    values = values.reshape(row["shape"].as_py())
    rows = Rows(path_text(item.path), window, start, end, values, row_columns(item), duration)
    return EmbeddedClip(item, rows, row["windows"].as_py(), duration)
