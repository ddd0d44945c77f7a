"""A Ray cluster to work on, joined or started here, and how the work is shared out on it."""

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

_MAX_CPUS = 4  # of an actor that computes on the CPU: beyond, two actors do more than one with twice the cores
_CONNECT_SECONDS = 10.0
_INIT_DEATHS = 3  # of actors in a row before any holds the model
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")

# Said before Ray is imported. What users have set themselves stays.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # clusters started here send no usage statistics
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong comes as an error; see _quiet
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming behaviour, without its warning about it
}
_DEVICES = "auto, cpu or cuda"


@dataclass(frozen=True)
class Allocation:
    """What the actors get.

    Attributes:
        actors: how many.
        cpus: of each, as Ray counts them; less than 1 where several share one.
        gpus: of each, 0 or 1.
    """

    actors: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        """That compute the network on the CPU."""
        return max(1, int(self.cpus))

    def fits(self, nodes: Sequence[Mapping[str, float]]) -> bool:
        """Whether any machine is large enough for one."""
        return any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes)


def check_device(device: str) -> None:
    """Makes sure that Ray can be told of a device.

    Raises:
        SettingsError: it deals out devices itself, or knows none of that kind.
    """
    if device not in ("auto", "cpu", "cuda", "cuda:all"):
        raise SettingsError(f"with the engine ray, which deals out GPUs itself, device is {_DEVICES}, not {device!r}")


def share_out(nodes: Sequence[Mapping[str, float]], device: str, actors: int | None, workers: int) -> Allocation:
    """How many actors there shall be, and of what size: one for each GPU, or for each few cores.

    Args:
        nodes: for each machine of the cluster, how much "CPU" and "GPU" it has.
        device: "cpu"; "cuda"; or "auto" for GPUs where there are any.
        actors: how many; None chooses. More than fit now wait for machines that come later.
        workers: threads of each actor that decode.

    Raises:
        SettingsError: GPUs are asked for, and there are none.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device.startswith("cuda") and not gpu_nodes and actors is None:
        raise SettingsError(
            "the Ray cluster has no GPU; use device cpu, or say how many actors there shall be if it will get some"
        )
    if device.startswith("cuda") or (device == "auto" and gpu_nodes):
        beside = [node.get("CPU", 0) / int(node["GPU"]) for node in gpu_nodes]
        count = actors or sum(int(node["GPU"]) for node in gpu_nodes)
        return Allocation(count, _rounded(min([max(1, workers), *beside])), 1)
    cores = [node["CPU"] for node in nodes if node.get("CPU", 0) >= 1]
    cpus = min([_MAX_CPUS, *map(int, cores)])
    fit = sum(int(each // cpus) for each in cores)
    while actors is not None and cpus > 1 and fit < actors:  # smaller ones, so that all of them fit
        cpus -= 1
        fit = sum(int(each // cpus) for each in cores)
    return Allocation(actors or max(1, fit), cpus, 0)


def _rounded(cpus: float) -> float:
    return int(cpus) if cpus >= 1 else int(cpus * 100) / 100


@contextmanager
def cluster(address: str | None = None, actors: int | None = None) -> Iterator[Any]:
    """Ray, connected: to the cluster that the caller is connected to, to that at an address, or to one started here.

    Connections and clusters that were made here end with the context.

    Args:
        address: "host:port" of the cluster's head, "auto" for the cluster that this machine is part of, "local" for a
            new one; None for what the environment's RAY_ADDRESS says, else a new one.
        actors: how many there will be, as far as known.

    Yields:
        The module ``ray``.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: no address of a cluster.
        WorkerError: the cluster cannot be reached, or is of another version of Ray or Python.
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
        # More than there are, so that as many actors as are asked for find room.
        options |= {"num_cpus": max(_cores(), actors or 1), "include_dashboard": False}
    elif address != "auto":
        _reach(address)
    try:
        with _no_chatter():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, OSError, SystemExit) as error:  # SystemExit where nobody answers for long
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if address == "local":
            raise WorkerError(f"a local Ray cluster cannot be started ({reason})") from error
        if "ersion" in reason:
            reason = " ".join(str(error).split())
            advice = "install the cluster's versions of Ray and Python here"
        else:
            advice = "start one with 'ray start --head', or name its address in RAY_ADDRESS"
        raise WorkerError(f"the Ray cluster {address!r} cannot be joined ({reason}); {advice}") from error


@contextmanager
def _no_chatter() -> Iterator[None]:
    """Nothing of what libraries in C++ print on standard error."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reach(address: str) -> None:
    """Makes sure that somebody answers at an address: Ray itself would try for minutes and end the process."""
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
    """Ray's loggers say nothing: what ends a run comes as an error, and progress is told by us."""
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
    """Ray Data's settings as we want them, then again as they were."""
    context = importlib.import_module("ray.data").DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "enable_operator_progress_bars": False,
        "print_on_execution_start": False,
        # A task's result is one block, whole or not there: done again, it may not come in the same pieces.
        "target_max_block_size": None,
        "max_consecutive_actor_init_deaths": _INIT_DEATHS,
        "execution_no_progress_timeout_s": -1,  # long recordings take long; see _watched in ray_engine.py
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
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
