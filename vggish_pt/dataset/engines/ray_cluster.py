"""Ray cluster: join or start it, and allocate its resources to actors."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vggish_pt.errors import SettingsError, WorkerError
from vggish_pt.utils.optional import require
from vggish_pt.utils.text import first_line, joined_lines

_MAX_CPUS = 4  # cores of an actor without a GPU; with more, two actors are faster than one with twice the cores
_CONNECT_SECONDS = 10.0
_INIT_DEATHS = 3  # deaths of actors in a row while they load the model
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")

# Set before Ray is imported, unless the user has set them.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # clusters started here send no usage statistics
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors are raised instead; see _quiet
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default, without its warning
}
_DEVICES = "auto, cpu or cuda"


@dataclass(frozen=True)
class Allocation:
    """Resources of the actors.

    Attributes:
        actors: number of actors.
        cpus: cores of each actor, as Ray counts them; less than 1 if several actors share a core.
        gpus: GPUs of each actor, 0 or 1.
    """

    actors: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        """Number of threads that compute the network on the CPU."""
        return max(1, int(self.cpus))

    def fits(self, nodes: Sequence[Mapping[str, float]]) -> bool:
        """Return True if any machine has room for an actor."""
        return any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes)


def check_device(device: str) -> None:
    """Check that a device can be used with Ray, which assigns GPUs itself.

    Raises:
        SettingsError: the device has a number, or is of another kind.
    """
    if device not in ("auto", "cpu", "cuda", "cuda:all"):
        raise SettingsError(f"with the engine ray, which assigns GPUs itself, device is {_DEVICES}, not {device!r}")


def share_out(nodes: Sequence[Mapping[str, float]], device: str, actors: int | None, workers: int) -> Allocation:
    """Allocate a cluster to actors: one per GPU, or one per few cores.

    Args:
        nodes: "CPU" and "GPU" of each machine of the cluster.
        device: "cpu", "cuda", or "auto" for GPUs if there are any.
        actors: number of actors; None chooses. Actors that do not fit wait for machines that join later.
        workers: number of threads in each actor that decode.

    Raises:
        SettingsError: the device is "cuda", and there are no GPUs.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device.startswith("cuda") and not gpu_nodes and actors is None:
        raise SettingsError(
            "the Ray cluster has no GPU; use device cpu, or set actors if machines with GPUs join later"
        )
    if device.startswith("cuda") or (device == "auto" and gpu_nodes):
        cores_per_gpu = [node.get("CPU", 0) / int(node["GPU"]) for node in gpu_nodes]
        count = actors or sum(int(node["GPU"]) for node in gpu_nodes)
        return Allocation(count, _rounded(min([max(1, workers), *cores_per_gpu])), 1)
    cores = [node["CPU"] for node in nodes if node.get("CPU", 0) >= 1]
    cpus = min([_MAX_CPUS, *map(int, cores)])
    fit = sum(int(node // cpus) for node in cores)
    while actors is not None and cpus > 1 and fit < actors:  # smaller actors, so that all of them fit
        cpus -= 1
        fit = sum(int(node // cpus) for node in cores)
    return Allocation(actors or max(1, fit), cpus, 0)


def _rounded(cpus: float) -> float:
    return int(cpus) if cpus >= 1 else int(cpus * 100) / 100


@contextmanager
def cluster(address: str | None = None, actors: int | None = None) -> Iterator[Any]:
    """Connect Ray: use the caller's connection, join the cluster at an address, or start one.

    A connection or cluster that was made here ends with the context.

    Args:
        address: "host:port" of the cluster's head, "auto" for the cluster of this machine, "local" for a new one; None
            for the environment variable RAY_ADDRESS, or a new one if it is not set.
        actors: number of actors, if known.

    Yields:
        The module ``ray``.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: the address is not valid.
        WorkerError: the cluster cannot be reached, or has another version of Ray or Python.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray = require("ray", "the engine ray")
    require("ray.data", "the engine ray")
    connected = ray.is_initialized()
    if not connected:
        _connect(ray, address or os.environ.get("RAY_ADDRESS") or "local", actors)
    with _quiet(), _data_settings():
        try:
            yield ray
        finally:
            if not connected:
                ray.shutdown()


def _connect(ray: Any, address: str, actors: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # More cores than the machine has, if needed, so that all actors fit.
        options |= {"num_cpus": max(_cores(), actors or 1), "include_dashboard": False}
    elif address != "auto":
        _reach(address)
    try:
        with _no_chatter():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, OSError, SystemExit) as error:  # SystemExit after a timeout
        reason = first_line(error)
        if address == "local":
            raise WorkerError(f"a local Ray cluster cannot be started ({reason})") from error
        if "ersion" in reason:
            reason = joined_lines(error)
            advice = "install the cluster's versions of Ray and Python here"
        else:
            advice = "start one with 'ray start --head', or name its address in RAY_ADDRESS"
        raise WorkerError(f"the Ray cluster {address!r} cannot be joined ({reason}); {advice}") from error


@contextmanager
def _no_chatter() -> Iterator[None]:
    """Discard standard error, also that of libraries in C++."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _reach(address: str) -> None:
    """Check that a server answers at an address: Ray itself tries for minutes and then ends the process."""
    found = _HOST_PORT.fullmatch(address)
    if found is None:
        raise SettingsError(
            f"a Ray cluster's address is host:port of its head (port 6379, usually), auto or local, not {address!r}; "
            "from outside a cluster, use 'ray job submit'"
        )
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise WorkerError(
            f"no Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error}); "
            "check RAY_ADDRESS, and that its head runs ('ray start --head')"
        ) from None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray's loggers: failures are raised as errors, and the command shows the progress."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]  # which have handlers of their own
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _data_settings() -> Iterator[None]:
    """Change Ray Data's settings for the block."""
    context = importlib.import_module("ray.data").DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "enable_operator_progress_bars": False,
        "print_on_execution_start": False,
        # A task returns one block: a repeated task may split its result differently.
        "target_max_block_size": None,
        "max_consecutive_actor_init_deaths": _INIT_DEATHS,
        "execution_no_progress_timeout_s": -1,  # a long recording takes long; see _watched in ray_engine.py
    }
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    try:
        for name in before:
            setattr(context, name, wanted[name])
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def resources(ray: Any) -> list[dict[str, float]]:
    """Return the resources of each machine of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
