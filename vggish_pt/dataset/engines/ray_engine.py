"""Engine of a Ray cluster: Ray Data with a pool of actors that hold the model.

Each actor receives a block of inputs as paths, reads and embeds it, and returns a table. Ray restarts lost actors and
repeats their blocks, so that each input has exactly one outcome, however many processes are lost.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from vggish_pt import errors
from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.engines.ray_actors import Attempts, Embedder, decode
from vggish_pt.dataset.engines.ray_blocks import inputs_per_block, packed_blocks, unpack
from vggish_pt.dataset.engines.ray_cluster import Allocation, check_device, cluster, resources, share_out
from vggish_pt.dataset.outcomes import Outcome
from vggish_pt.dataset.schema import Failure, RowPooling
from vggish_pt.errors import AudioWarning, SettingsError, VGGishError, WorkerError
from vggish_pt.inference.settings import EmbedSettings, check_workers
from vggish_pt.pretrained import registry
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME, weights_digest
from vggish_pt.version import __version__

_POLL_SECONDS = 0.5
_STATUS_SECONDS = 10.0  # between two questions about the state of the cluster
_STOP_SECONDS = 10.0
_PATIENCE_SECONDS = 1800.0  # a cluster that grows may take long to start a machine
_FAILED = re.compile(r"^ *([\w.]*(?:Error|Exception|Interrupt)\b.*)$", re.MULTILINE)
_RAISED = re.compile(r"vggish_pt\.errors\.([A-Za-z]+): (.+)")


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
    """Embed inputs on a Ray cluster. Closing the iterator early stops the work on the cluster.

    Ray sends the model's file to the actors. Every machine of the cluster must be able to read the inputs: on shared
    storage or at addresses.

    Args:
        weights: model folder, name or Hub repository; resolved on this machine.
        items: the inputs, at least one.
        settings: settings that decide the numbers.
        pool: "none" for a row per window, "mean" for a row per input.
        precision: precision of the network, "fp32", "tf32" or "bf16".
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".
        actors: number of processes that hold the model; None for one per GPU, or one per four cores.
        workers: number of threads in each actor that decode.
        address: address of the cluster; see :func:`vggish_pt.dataset.engines.ray_cluster.cluster`.
        patience: seconds to wait while the cluster has no room for any actor.

    Yields:
        One outcome for each input, in any order: an :class:`vggish_pt.dataset.EmbeddedClip` or a
        :class:`vggish_pt.dataset.Failure`.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: a setting is not allowed.
        WorkerError: the cluster cannot be joined, has no room for any actor, or has another version of the package.
        WeightsError: the weights are not available.
    """
    check_device(device)
    check_workers(workers)
    if actors is not None and (isinstance(actors, bool) or not isinstance(actors, int) or actors < 1):
        raise SettingsError(f"actors must be a whole number from 1, not {actors!r}")
    folder = registry.resolve(weights)
    with cluster(address, actors) as ray:
        allocation = share_out(resources(ray), device, actors, workers)
        job = {
            "version": __version__,
            "settings": asdict(settings),
            "pool": pool,
            "precision": precision,
            "device": "cuda" if allocation.gpus else "cpu",
            "workers": workers,
            "threads": allocation.threads,
            "digest": weights_digest(folder),
            "folder": os.getcwd(),  # noqa: PTH109
        }
        attempts = _attempts(ray)
        packed: dict[int, bytes] = {}
        for data in packed_blocks(items, inputs_per_block(items, allocation.actors)):
            if isinstance(data, Failure):
                yield data
            else:
                packed[len(packed)] = data
        if not packed:
            return
        model = (ray.put((folder / CONFIG_NAME).read_bytes()), ray.put(np.fromfile(folder / WEIGHTS_NAME, np.uint8)))
        tables = _tables(_dataset(packed, allocation, (job, *model, attempts)))

        def working() -> bool:
            """Return True if actors have started and a machine has room for one."""
            return bool(ray.get(attempts.started.remote())) and allocation.fits(resources(ray))

        with closing(_watched(tables, working, allocation, patience)) as results:
            yield from _outcomes(results, packed)


def _attempts(ray: Any) -> Any:
    """Start the actor that counts attempts, on this machine, so that it lives as long as the run."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Attempts).remote()


def _dataset(packed: dict[int, bytes], allocation: Allocation, arguments: tuple[Any, ...]) -> Any:
    import pyarrow as pa

    data = importlib.import_module("ray.data")
    # The blocks are passed as tables: tasks that read them would need cores in addition to those of the actors.
    blocks = data.from_arrow([pa.table({"block": [block], "items": [items]}) for block, items in packed.items()])
    return blocks.map_batches(
        Embedder,
        fn_constructor_args=arguments,
        compute=data.ActorPoolStrategy(size=allocation.actors),
        num_cpus=allocation.cpus,
        num_gpus=allocation.gpus,
        batch_size=1,
        batch_format="pyarrow",
    )


def _tables(dataset: Any) -> Generator[Any]:
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _watched(
    tables: Generator[Any], working: Callable[[], bool], allocation: Allocation, patience: float
) -> Generator[Any]:
    """Yield tables that a thread takes, so that Ctrl-C ends the wait, and also a cluster without room for an actor.

    Args:
        tables: tables from Ray Data.
        working: returns True while the cluster works.
        allocation: resources of the actors.
        patience: seconds to wait while the cluster does not work.
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
    last_work, last_status, warned = time.monotonic(), 0.0, False
    try:
        while True:
            try:
                result = ready.get(timeout=_POLL_SECONDS)
            except Empty:
                now = time.monotonic()
                if now - last_status < min(_STATUS_SECONDS, patience / 4):
                    continue
                last_status = now
                if working():
                    last_work = now
                elif now - last_work > patience:
                    raise WorkerError(
                        f"{_no_room(allocation)} after {now - last_work:.0f} s; ask for fewer or smaller"
                    ) from None
                elif not warned and now - last_work > min(60.0, patience / 2):
                    warned = True
                    warnings.warn(f"{_no_room(allocation)} yet; waiting for it", UserWarning, stacklevel=2)
                continue
            last_work = time.monotonic()
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
    """Stop Ray Data's threads that are not in ``before``; Ray Data has no public function for that.

    Otherwise they continue after the connection has ended, and start a new cluster.
    """
    for thread in set(threading.enumerate()) - before:
        if type(thread).__name__ == "StreamingExecutor" and hasattr(thread, "shutdown"):
            with contextlib.suppress(Exception):
                thread.shutdown(force=False)


def _no_room(allocation: Allocation) -> str:
    actor = f"{allocation.cpus:g} CPUs" + (" and a GPU" if allocation.gpus else "")
    return f"the Ray cluster has no room for any of {allocation.actors} actors of {actor}"


def _outcomes(tables: Iterable[Any], packed: dict[int, bytes]) -> Iterator[Outcome]:
    """Yield the outcomes in tables: one for each input.

    Raises:
        WorkerError: an input has no outcome.
    """
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
                if item is not None:  # else it is a repeated outcome
                    yield decode(row, item)
                    if not open_blocks[block]:
                        del open_blocks[block]
    missing = sum(map(len, open_blocks.values())) + sum(len(unpack(data)) for data in packed.values())
    if missing:
        raise WorkerError(f"the Ray cluster gave no result for {missing} inputs; run the same command again")


def explained(error: BaseException) -> BaseException:
    """Return the package's error for an error on the cluster."""
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
