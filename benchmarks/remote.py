"""Requests and seconds to read files over loopback HTTP and S3: our block file beside fsspec's caches.

Each file is read in order in reads of 64 KiB, and as decoders do it: the start, the end, then 2 s of sound at random
positions. The servers run in this process. Rounds go through all readers in turn.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

import fsspec
import numpy as np
import s3fs
from moto.server import ThreadedMotoServer

from vggish_pt.utils.remote import open_address

READ = 1 << 16
SOUND = 2 * 44_100 * 2  # bytes of 2 s, 16 bit, mono

count = [0]


@contextmanager
def http_server(files: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            count[0] += 1
            data = files[self.path.strip("/")]
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            first, last = (int(found[1]), min(int(found[2]), len(data) - 1)) if found else (0, len(data) - 1)
            self.send_response(206 if found else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            if found:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(memoryview(data)[first : last + 1])

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def s3_server(files: dict[str, bytes]) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, *args: Any, **options: Any) -> Any:
        count[0] += 1
        return await call(self, *args, **options)

    s3fs.S3FileSystem._call_s3 = counted
    fs = s3fs.S3FileSystem()
    fs.mkdir("bucket")
    for name, data in files.items():
        fs.pipe_file(f"bucket/{name}", data)
    yield "s3://bucket/"
    server.stop()


def fsspec_file(cache: str) -> Callable[[str], Any]:
    options = {"cache_options": {"maxblocks": 4}} if cache == "blockcache" else {}

    def open_file(address: str) -> Any:
        fs, path = fsspec.core.url_to_fs(address)
        return fs.open(path, "rb", block_size=2 << 20, cache_type=cache, **options)

    return open_file


READERS = {"ours": open_address, "blockcache": fsspec_file("blockcache"), "readahead": fsspec_file("readahead")}


def in_order(file: Any, size: int) -> None:
    while file.read(READ):
        pass


def like_a_decoder(file: Any, size: int) -> None:
    generator = np.random.default_rng(0)
    starts = generator.integers(0, max(1, size - SOUND), 8).tolist()
    for start, length in [(0, 4096), (size - 4096, 4096), *((start, SOUND) for start in starts)]:
        file.seek(start)
        for _ in range(0, length, READ):
            file.read(min(READ, length))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 64], help="of the files, in MiB")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    files = {str(mib): random.bytes(mib << 20) for mib in arguments.sizes}
    print("| server | MiB | reads | " + " | ".join(f"{name}: requests, s" for name in READERS) + " |")
    print("| --- " * (3 + len(READERS)) + "|")
    for serve in (http_server, s3_server):
        with serve(files) as base:
            for name, data in files.items():
                for read in (in_order, like_a_decoder):
                    seconds: dict[str, list[float]] = {reader: [] for reader in READERS}
                    requests = {}
                    for _ in range(arguments.rounds):
                        for reader, open_file in READERS.items():
                            fsspec.core.url_to_fs(base)[0].invalidate_cache()
                            count[0], begin = 0, time.perf_counter()
                            with open_file(base + name) as file:
                                read(file, len(data))
                            seconds[reader].append(time.perf_counter() - begin)
                            requests[reader] = count[0]
                    cells = [f"{requests[reader]}, {median(seconds[reader]):.3f}" for reader in READERS]
                    what = read.__name__.replace("_", " ")
                    print(f"| {base.partition(':')[0]} | {name} | {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
