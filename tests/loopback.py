"""A real HTTP server on 127.0.0.1 that can misbehave, and a small checkpoint to serve."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers GET (and HEAD) from ``routes``, path → what to do; ``requests`` records (method, path, Range header)."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {}
        self.otherwise: Answer = status(404)
        self.requests: list[tuple[str, str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.requests.append((self.command, path, self.headers.get("Range")))
                with contextlib.suppress(ConnectionError):
                    server.routes.get(path, server.otherwise)(self)

            do_HEAD = do_POST = do_PUT = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def count(self, path: str) -> int:
        return sum(seen == path for _, seen, _ in self.requests)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=functools.partial(self._http.serve_forever, poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server in this process; ImportError without the libraries for one."""
    import s3fs
    from moto.server import ThreadedMotoServer

    # fsspec keeps file systems by their arguments, and would take another server's for this one's.
    s3fs.S3FileSystem.clear_instance_cache()
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def send(handler: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def status(code: int) -> Answer:
    return lambda handler: send(handler, code, b"no")


def redirect(url: str) -> Answer:
    return lambda handler: send(handler, 302, Location=url)


def good(data: bytes, *, ranges: bool = True) -> Answer:
    """The file, with or without support for Range."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        if not ranges or not match:
            return send(handler, 200, data)
        first = int(match[1])
        if first >= len(data):
            return send(handler, 416, Content_Range=f"bytes */{len(data)}")
        return send(handler, 206, data[first:], Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")

    return answer


def truncated(data: bytes, sent: int) -> Answer:
    """Promises the whole file and sends only its beginning."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, data[:sent], Content_Length=str(len(data)))
        handler.close_connection = True

    return answer


def chunks(pieces: Iterator[bytes]) -> Answer:
    """Sends pieces without saying how many there will be."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Each answer once, the last one from then on."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """An address that swallows connections: nothing accepts, and the queue of those waiting is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_port() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


@functools.cache
def small_checkpoint() -> bytes:
    """A checkpoint in torchvggish's layout with fully connected layers 2 wide; random weights."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    state = {}
    for index, inputs, outputs in [
        (0, 1, 64),
        (3, 64, 128),
        (6, 128, 256),
        (8, 256, 256),
        (11, 256, 512),
        (13, 512, 512),
    ]:
        state |= {f"features.{index}.weight": random(outputs, inputs, 3, 3), f"features.{index}.bias": random(outputs)}
    for index, inputs, outputs in [(0, 12288, 2), (2, 2, 2), (4, 2, 128)]:
        state |= {f"embeddings.{index}.weight": random(outputs, inputs), f"embeddings.{index}.bias": random(outputs)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
