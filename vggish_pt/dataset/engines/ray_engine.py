"""Inputs → what becomes of them, on a Ray cluster: Ray Data with a pool of actors that hold the model.

Blocks of inputs go out as paths; each actor reads and embeds a block and sends back a table. What dies is started again
by Ray, and its blocks are done again, so that each input ends up with one outcome however many processes are lost.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from vggish_pt import errors
from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.engines.ray_actors import Attempts, Embedder, decode, pack, unpack
from vggish_pt.dataset.engines.ray_cluster import Allocation, check_device, cluster, resources, share_out
from vggish_pt.dataset.outcomes import Outcome, failure
from vggish_pt.dataset.schema import Failure, RowPooling
from vggish_pt.errors import AudioError, AudioWarning, SettingsError, VGGishError, WorkerError
from vggish_pt.inference.settings import EmbedSettings, check_workers
from vggish_pt.pretrained import registry
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME, weights_digest
from vggish_pt.version import __version__

_MAX_INPUTS = 256  # in a block
_BLOCK_BYTES = 64 << 20  # of sound files in a block, about: what a lost process costs at most
_BLOCKS_EACH = 8  # at least so many for each actor, so that they finish together
_GUESSED_BYTES = 1 << 20
_SAMPLE, _SAMPLED = 64, 1024

_POLL_SECONDS = 0.5
_ASK_SECONDS = 10.0
_STOP_SECONDS = 10.0
_PATIENCE_SECONDS = 1800.0  # machines of a cluster that grows may take long to come
_FAILED = re.compile(r"^ *([\w.]*(?:Error|Exception|Interrupt)\b.*)$", re.MULTILINE)
_RAISED = re.compile(r"vggish_pt\.errors\.([A-Za-z]+): (.+)")

_Block = tuple[int, bytes]


def outcomes_on_ray(
    weights: str | os.PathLike[str],
    items: Iterable[Clip],
    settings: EmbedSettings,
    *,
    pool: RowPooling = "none",
    precision: str = "fp32",
    device: str = "auto",
    actors: int | None = None,
    workers: int = 1,
    address: str | None = None,
    patience: float = _PATIENCE_SECONDS,
) -> Generator[Outcome]:
    """Embeds inputs on a Ray cluster; closing the iterator early stops the work there.

    The model's file goes to the actors through Ray. What inputs name must be there for all machines of the cluster: on
    storage that they share, or at addresses.

    Args:
        weights: model folder, name or Hub repository; resolved here.
        items: the inputs, at least one.
        settings: what decides the numbers.
        pool: whether a row is a window or a whole input.
        precision: of the network, "fp32", "tf32" or "bf16".
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".
        actors: how many processes hold the model; None for one on each GPU, or on each four cores.
        workers: threads of each that decode.
        address: of the cluster; see :func:`vggish_pt.dataset.engines.ray_cluster.cluster`.
        patience: seconds to wait while the cluster has no room for any actor.

    Yields:
        For each input its rows, or why there are none; in any order.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: settings that do not fit.
        WorkerError: the cluster cannot be joined, gives no room to any actor, or has another version of the package.
        WeightsError: no such weights.
    """
    check_device(device)
    check_workers(workers)
    if actors is not None and (isinstance(actors, bool) or not isinstance(actors, int) or actors < 1):
        raise SettingsError(f"actors must be a whole number from 1, not {actors!r}")
    folder = registry.resolve(weights)
    with cluster(address, actors) as ray:
        share = share_out(resources(ray), device, actors, workers)
        job = {
            "version": __version__,
            "settings": asdict(settings),
            "pool": pool,
            "precision": precision,
            "device": "cuda" if share.gpus else "cpu",
            "workers": workers,
            "threads": share.threads,
            "digest": weights_digest(folder),
            "folder": os.getcwd(),  # noqa: PTH109
        }
        attempts = _attempts(ray)
        packed: dict[int, bytes] = {}
        for data in _packed(items, inputs_per_block(items, share.actors)):
            if isinstance(data, Failure):
                yield data
            else:
                packed[len(packed)] = data
        if not packed:
            return
        model = (ray.put((folder / CONFIG_NAME).read_bytes()), ray.put(np.fromfile(folder / WEIGHTS_NAME, np.uint8)))
        tables = _tables(_dataset(packed, share, (job, *model, attempts)))

        def working() -> bool:
            """Whether actors have started, and a machine is left that has room for one."""
            return bool(ray.get(attempts.started.remote())) and share.fits(resources(ray))

        with closing(_watched(tables, working, share, patience)) as results:
            yield from _outcomes(results, packed)


def _attempts(ray: Any) -> Any:
    """The actor that counts, on this machine: it lasts as long as the run."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Attempts).remote()


def inputs_per_block(items: Iterable[Clip], actors: int) -> int:
    """How many inputs an actor gets at a time: many, so that batches are full, but no more than it may lose.

    Args:
        items: can be iterated again; the sizes of some files at its beginning are looked at.
        actors: how many there are.
    """
    if not isinstance(items, Sized):  # they may be there only once
        return _MAX_INPUTS
    count = len(items)
    sizes = [_bytes(item) for item in islice(items, 0, _SAMPLED, max(1, min(count, _SAMPLED) // _SAMPLE))]
    fit = _BLOCK_BYTES // max(1, sum(sizes) // max(1, len(sizes)))
    return max(1, min(_MAX_INPUTS, fit, -(-count // (actors * _BLOCKS_EACH))))


def _bytes(item: Clip) -> int:
    """The size of its file; a guess where that cannot be seen from here."""
    if item.source is None:
        with contextlib.suppress(OSError, ValueError):
            return Path(item.path).stat().st_size
    size = len(item.source) if isinstance(item.source, bytes) else getattr(item.source, "size", None)
    return size if isinstance(size, int) else _GUESSED_BYTES


def _packed(items: Iterable[Clip], size: int) -> Iterator[bytes | Failure]:
    """Inputs in blocks; those that cannot be sent fail."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        try:
            yield pack(block)
        except Exception:  # whatever other people's classes raise
            fit = []
            for item in block:
                try:
                    pack([item])
                except Exception as error:
                    reason = " ".join(str(error).split())
                    yield failure(item.path, AudioError(f"cannot be sent to a cluster ({reason})", item.path), item)
                else:
                    fit.append(item)
            if fit:
                yield pack(fit)


def _dataset(packed: dict[int, bytes], share: Allocation, arguments: tuple[Any, ...]) -> Any:
    import pyarrow as pa

    data = importlib.import_module("ray.data")
    # The inputs are there from the start. Tasks that read them would need cores beside those of the actors.
    blocks = data.from_arrow([pa.table({"block": [block], "items": [items]}) for block, items in packed.items()])
    return blocks.map_batches(
        Embedder,
        fn_constructor_args=arguments,
        compute=data.ActorPoolStrategy(size=share.actors),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        batch_size=1,
        batch_format="pyarrow",
    )


def _tables(dataset: Any) -> Generator[Any]:
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _watched(tables: Generator[Any], working: Callable[[], bool], share: Allocation, patience: float) -> Generator[Any]:
    """Takes tables in a thread of its own, so that waiting can end: by Ctrl-C, or if the cluster gives no room.

    Args:
        tables: from Ray Data.
        working: says whether the cluster is at work.
        share: what each actor wants.
        patience: seconds for which it may not be.
    """
    ready: Queue[Any] = Queue(2)
    stop = threading.Event()

    def put(result: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(Full):
                ready.put(result, timeout=_POLL_SECONDS)
                return

    def take() -> None:
        try:
            with closing(tables):
                for table in tables:
                    put(table)
                    if stop.is_set():
                        return
            put(None)
        except BaseException as error:
            put(error)

    before = set(threading.enumerate())
    thread = threading.Thread(target=take, name="vggish-pt-ray", daemon=True)
    thread.start()
    since, asked, told = time.monotonic(), 0.0, False
    try:
        while True:
            try:
                result = ready.get(timeout=_POLL_SECONDS)
            except Empty:
                now = time.monotonic()
                if now - asked < min(_ASK_SECONDS, patience / 4):
                    continue
                asked = now
                if working():
                    since = now
                elif now - since > patience:
                    raise WorkerError(
                        f"{_no_room(share)} after {now - since:.0f} s; ask for fewer or smaller"
                    ) from None
                elif not told and now - since > min(60.0, patience / 2):
                    told = True
                    warnings.warn(f"{_no_room(share)} yet; waiting for it", UserWarning, stacklevel=2)
                continue
            since = time.monotonic()
            if result is None:
                return
            if isinstance(result, BaseException):
                raise explained(result) from result
            yield result
    finally:
        stop.set()
        _end_execution(before)
        thread.join(_STOP_SECONDS)


def _end_execution(before: set[threading.Thread]) -> None:
    """Ends what Ray Data has begun in threads that were not there before; it has no public call for that.

    Left alone, it would go on after the connection's end, and start a cluster of its own for that.
    """
    for thread in set(threading.enumerate()) - before:
        if type(thread).__name__ == "StreamingExecutor" and hasattr(thread, "shutdown"):
            with contextlib.suppress(Exception):
                thread.shutdown(force=False)


def _no_room(share: Allocation) -> str:
    each = f"{share.cpus:g} CPUs" + (" and a GPU" if share.gpus else "")
    return f"the Ray cluster has no room for any of {share.actors} actors of {each}"


def _outcomes(tables: Iterable[Any], packed: dict[int, bytes]) -> Iterator[Outcome]:
    """Outcomes in tables; each input's once, and none left out."""
    open_blocks: dict[int, dict[int, Clip]] = {}
    for table in tables:
        for batch in table.to_batches():
            columns = {name: batch.column(name) for name in batch.schema.names}
            for index, block in enumerate(columns["block"].to_pylist()):
                row = {name: column[index] for name, column in columns.items()}
                place = row["place"].as_py()
                if place < 0:
                    warnings.warn(row["reason"].as_py(), AudioWarning, stacklevel=2)
                    continue
                if block in packed:
                    open_blocks[block] = dict(enumerate(unpack(packed.pop(block))))
                item = open_blocks.get(block, {}).pop(place, None)
                if item is not None:  # else it came before
                    yield decode(row, item)
                    if not open_blocks[block]:
                        del open_blocks[block]
    missing = sum(map(len, open_blocks.values())) + sum(len(unpack(data)) for data in packed.values())
    if missing:
        raise WorkerError(f"the Ray cluster gave no result for {missing} inputs; run the same command again")


def explained(error: BaseException) -> BaseException:
    """What went wrong on the cluster, as one of the package's errors."""
    text = f"{error}\n{error.__cause__ or ''}"
    if found := _RAISED.findall(text):
        name, message = found[-1]
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, VGGishError):
            return kind(message)
    if re.search(r"No module named 'vggish_pt|cannot import name .* from 'vggish_pt", text):
        return WorkerError(
            f"vggish_pt {__version__} is not installed on all machines of the Ray cluster; install it there, or name "
            "it in the job's runtime environment"
        )
    if isinstance(error, Exception):
        lines = [line for line in _FAILED.findall(text) if not line.startswith("ray.")]
        return WorkerError(f"the work on the Ray cluster failed ({(lines or [type(error).__name__])[-1]})")
    return error
