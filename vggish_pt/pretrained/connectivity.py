"""Whether the network can be used at all, found out within about a second.

A machine that is cut off often does not refuse connections but swallows them, and libraries then wait and
retry for minutes. So before a download every host involved is asked for a TCP connection, all at the same time,
with one deadline.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from vggish_pt.errors import SettingsError

OFFLINE_VARIABLES = ("VGGISH_PT_OFFLINE", "HF_HUB_OFFLINE")
DEADLINE_VARIABLE = "VGGISH_PT_CONNECT_TIMEOUT"

_DEADLINE_SECONDS = 1.0
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
_MAX_ADDRESSES = 4

_Endpoint = tuple[str, int]


def offline_variable() -> str | None:
    """Name of the environment variable that forbids using the network, or None."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return None


def unreachable(urls: Iterable[str]) -> dict[str, str]:
    """Those of some addresses whose host (or the proxy that leads to it) takes no connection.

    Args:
        urls: http or https addresses.

    Returns:
        Address → why, in a few words; empty if all can be reached.

    Raises:
        SettingsError: ``VGGISH_PT_CONNECT_TIMEOUT`` is no positive number.
    """
    deadline = _deadline_seconds()
    endpoints = {url: _endpoint(url) for url in urls}
    answers: queue.SimpleQueue[tuple[_Endpoint, str | None]] = queue.SimpleQueue()
    for endpoint in set(endpoints.values()):
        _start(_ask, endpoint, deadline, answers)
    reasons: dict[_Endpoint, str | None] = {}
    end = time.monotonic() + deadline
    while len(reasons) < len(set(endpoints.values())):
        try:
            endpoint, reason = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        reasons[endpoint] = reason
    slow = f"no answer within {deadline:g} s (on a slow network set {DEADLINE_VARIABLE}=10)"
    found = {url: reasons.get(endpoint, slow) for url, endpoint in endpoints.items()}
    return {url: reason for url, reason in found.items() if reason is not None}


def _deadline_seconds() -> float:
    text = os.environ.get(DEADLINE_VARIABLE, "").strip()
    if not text:
        return _DEADLINE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise SettingsError(f"{DEADLINE_VARIABLE} must be a number of seconds above 0, not {text!r}")
    return seconds


def _endpoint(url: str) -> _Endpoint:
    """Host and port that a request for ``url`` would connect to first."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    parts = urlsplit(proxy or url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)


def _start(function: object, *args: object) -> None:
    # Daemons: a lookup of a name cannot be interrupted, and must not keep the process from ending.
    threading.Thread(target=function, args=args, daemon=True).start()  # type: ignore[arg-type]


def _ask(endpoint: _Endpoint, deadline: float, answers: queue.SimpleQueue[tuple[_Endpoint, str | None]]) -> None:
    """Answers with None for the first address that takes a connection, or with why none does."""
    host, port = endpoint
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        answers.put((endpoint, "the host's name cannot be looked up"))
        return
    # All addresses at once, since one family (a broken IPv6, say) may hang while the other works.
    addresses = list(dict.fromkeys((info[4][0], info[4][1]) for info in found))[:_MAX_ADDRESSES]
    results: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def connect(address: tuple[str, int]) -> None:
        try:
            # Longer than the caller waits, so that it is the caller who calls it slow.
            socket.create_connection(address, timeout=deadline + 1).close()
            results.put(None)
        except OSError as error:
            results.put(error.strerror or str(error))

    for address in addresses:
        _start(connect, address)
    reason: str | None = "the host's name has no address"
    for _ in addresses:
        reason = results.get()
        if reason is None:
            break
    answers.put((endpoint, reason))
