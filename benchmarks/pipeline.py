"""Throughput and memory of the whole: from files to embeddings, beside the network alone and decoding alone.

    python benchmarks/pipeline.py speed            # short clips, and a long file among them
    python benchmarks/pipeline.py memory           # peak of this process and of its workers, for 500 and 5,000 files

Clips are cut from the recordings of `--recordings` (a folder of audio, by default that of VGGISH_PT_ESC10). Without
recordings they are generated. `--help` lists all options.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from common import RATE, add_weights_option, load_model, print_machine, print_table, spread

from vggish_pt import VGGish, VGGishConfig, VGGishError
from vggish_pt.audio.clip import Clip
from vggish_pt.bench import generated_sound
from vggish_pt.inference.batching import Batch
from vggish_pt.inference.loading import WindowChunk, load_windows
from vggish_pt.inference.pipeline import embed_clips
from vggish_pt.inference.processes import read_in_processes
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.utils.prefetch import ReadAhead, prefetch

RECORDINGS = Path(os.environ.get("VGGISH_PT_ESC10", "esc10"))
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def sounds(folder: Path) -> list[tuple[np.ndarray, int]]:
    """Sounds to cut clips from."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".ogg", ".wav", ".flac"))[::8]
    if not paths:
        return [(generated_sound(5.0, seed=seed)[:, 0], RATE) for seed in range(40)]
    return [sf.read(path, dtype="float32") for path in paths]


def cut(folder: Path, recordings: Path, count: int, seconds: float, form: str) -> list[str]:
    """So many clips of that length, each a different part of a recording."""
    source, rng, paths = sounds(recordings), np.random.default_rng(0), []
    for number in range(count):
        samples, rate = source[number % len(source)]
        length = round(seconds * rate)
        while len(samples) < 2 * length:
            samples = np.concatenate([samples, samples])
        start = int(rng.integers(0, len(samples) - length))
        path = folder / f"{number:05}.{form}"
        sf.write(path, samples[start : start + length], rate)
        paths.append(str(path))
    return paths


def write_long(folder: Path, seconds: float, form: str) -> str:
    """One long file, 44.1 kHz."""
    block = generated_sound(60.0, seed=99)[:, 0]
    path = folder / f"long.{form}"
    with sf.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(max(1, round(seconds / 60))):
            file.write(block)
    return str(path)


def clips(paths: list[str]) -> Iterator[Clip]:
    return (Clip(path, number) for number, path in enumerate(paths))


@dataclass
class Way:
    """A way to read ahead."""

    name: str
    workers: int
    processes: bool

    def pieces(self, model: VGGish, paths: list[str], settings: EmbedSettings, size: int) -> Iterator[WindowChunk]:
        if self.processes:
            return read_in_processes(clips(paths), model.frontend, settings, self.workers, ahead=size)
        from vggish_pt.inference.pipeline import _use_one_thread

        ahead: ReadAhead[Clip, WindowChunk] = ReadAhead(
            size, size, lambda clip: clip.nbytes, lambda piece: len(piece.windows)
        )
        return prefetch(
            clips(paths),
            lambda clip: load_windows(clip, model.frontend, settings),
            self.workers,
            prepare=_use_one_thread,
            ahead=ahead,
        )


class _Sink:
    pending = 0

    def take(self, values: torch.Tensor) -> None:
        self.pending -= len(values)


def network_alone(model: VGGish, settings: EmbedSettings, windows: torch.Tensor, count: int) -> float:
    """Windows a second of the network on windows that are there already."""
    batch, sink = Batch(model, settings), _Sink()
    batch.add(sink, windows)
    batch.run_all()
    start, done = time.perf_counter(), 0
    while done < count:
        batch.add(sink, windows)
        done += len(windows)
    batch.run_all()
    return done / (time.perf_counter() - start)


def _rate(events: Iterator[int], batch_size: int) -> float:
    """Windows a second once it runs: the start of workers, and the first pass, do not count."""
    times, done = [], []
    for count in events:
        times.append(time.perf_counter())
        done.append(count + (done[-1] if done else 0))
    first = next(i for i, total in enumerate(done) if total >= min(batch_size, done[-1] // 2))
    while first + 2 < len(times) and times[first + 1] - times[first] < 0.005:  # results of a pass come together
        first += 1
    return (done[-1] - done[first]) / max(times[-1] - times[first], 1e-9)


def decoding_alone(way: Way, model: VGGish, paths: list[str], settings: EmbedSettings, size: int) -> float:
    return _rate((len(piece.windows) for piece in way.pieces(model, paths, settings, size)), size)


def whole(way: Way, model: VGGish, paths: list[str], settings: EmbedSettings) -> float:
    items = clips(paths)
    results = embed_clips(
        model, items, settings, workers=way.workers, processes=way.processes, ordered=not way.processes
    )

    def counts() -> Iterator[int]:
        for _, result in results:
            if isinstance(result, VGGishError):
                raise result
            yield len(result)

    return _rate(counts(), settings.batch_size or 0)


def speed(args: argparse.Namespace) -> None:
    model = load_model(args.weights).to(args.device)
    threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    settings = EmbedSettings(batch_size=args.batch_size)
    print(f"Network: {args.device}, {threads} threads, batches of {args.batch_size}.\n")
    ways = [Way("threads", args.workers, False), Way("processes", args.workers, True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = cut(folder, args.recordings, args.files, args.seconds, args.format)
        mixed = [clips[0], write_long(folder, args.long * 3600, args.format), *clips[1:]]
        examples = torch.cat([piece.windows for piece in map_read(model, clips[: max(1, args.batch_size // 4)])])
        examples = examples.repeat(-(-args.batch_size // len(examples)), 1, 1)[: args.batch_size]
        for label, paths in ((f"{len(clips)} clips of {args.seconds:g} s", clips), (f"and {args.long:g} h", mixed)):
            for way in ways:
                rounds: list[list[float]] = []
                for _ in range(args.rounds):  # all in turn, as the machine's speed may drift
                    network = network_alone(model, settings, examples, args.network_windows)
                    decoding = decoding_alone(way, model, paths, settings, args.batch_size)
                    rounds.append([network, decoding, whole(way, model, paths, settings)])
                rows.append(_row(f"{label}, {args.workers} {way.name}", rounds))
                print(rows[-1], file=sys.stderr, flush=True)
    print_table(
        (
            f"windows/s ({args.format})",
            "network alone",
            "decoding alone",
            "whole",
            "whole / the lesser",
            "whole / shared cores",
        ),
        rows,
    )


rows: list[tuple[str, ...]] = []


def map_read(model: VGGish, paths: list[str]) -> Iterator[WindowChunk]:
    for clip in clips(paths):
        yield from load_windows(clip, model.frontend, EmbedSettings())


def _row(label: str, rounds: list[list[float]]) -> tuple[str, ...]:
    shares = [whole / min(network, decoding) for network, decoding, whole in rounds]
    # Where both use all cores, their times for a window add up.
    shared = [whole * (1 / network + 1 / decoding) for network, decoding, whole in rounds]
    columns = [spread([values[i] for values in rounds]) for i in range(3)]
    return (label, *columns, spread(shares, ".0%"), spread(shared, ".0%"))


# --- memory -----------------------------------------------------------------------------------------------------------


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _children(pid: int) -> list[int]:
    try:
        listed = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(child) for text in listed for child in text.split()]


class Watch(threading.Thread):
    """Peak resident memory of this process and of the largest of its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.child = 0
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(0.02):
            self.own = max(self.own, _resident(os.getpid()))
            self.child = max([self.child, *map(_resident, _children(os.getpid()))])

    def stop(self) -> None:
        self._stop_it.set()
        self.join()


def memory_of(folder: Path, count: int, way: Way, batch_size: int) -> None:
    """Runs in a process of its own; prints the peaks in MiB."""
    # A narrow network: its weights are no part of the question, and the convolutions come first.
    model = VGGish(VGGishConfig(fc_width=16)).eval()
    paths = sorted(str(path) for path in folder.glob("*"))[:count]
    items = clips(paths)
    settings = EmbedSettings(batch_size=batch_size, layer="embedding")
    watch = Watch()
    watch.start()
    done = 0
    for _, result in embed_clips(model, items, settings, workers=way.workers, processes=way.processes, ordered=False):
        if isinstance(result, VGGishError):
            raise result
        done += 1
    watch.stop()
    print(done, watch.own >> 20, watch.child >> 20)


def memory(args: argparse.Namespace) -> None:
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = args.counts
        cut(folder, args.recordings, many, args.seconds, args.format)
        for kind in ("threads", "processes"):
            peaks = []
            for count in (few, many):
                command = [sys.executable, __file__, "memory-of", str(folder), str(count), kind]
                command += ["--workers", str(args.workers), "--batch-size", str(args.batch_size)]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                done, own, child = map(int, run.stdout.split())
                if done != count:
                    raise SystemExit(f"{done} of {count} files: {run.stderr}")
                peaks.append((own, child))
                print(kind, count, own, child, file=sys.stderr, flush=True)
            (own, child), (own_many, child_many) = peaks
            children = [f"{child}", f"{child_many}", f"{child_many / child - 1:+.1%}"] if child else ["", "", ""]
            table.append((f"{args.workers} {kind}", f"{own}", f"{own_many}", f"{own_many / own - 1:+.1%}", *children))
    of_child = [f"a worker, {few}", f"{many}", "more"]
    print_table(("peak, MiB", f"caller, {few} files", f"{many} files", "more", *of_child), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "memory"):
        command = commands.add_parser(name)
        command.add_argument("--recordings", type=Path, default=RECORDINGS)
        command.add_argument("--format", default="wav", choices=("wav", "flac", "ogg"))
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--batch-size", type=int, default=256)
        command.add_argument("--quick", action="store_true", help="a tenth of it, to see that it works")
    one = commands.choices["speed"]
    add_weights_option(one)
    one.add_argument("--device", default="cpu")
    one.add_argument("--threads", type=int, help="of the network; left out: all cores")
    one.add_argument("--files", type=int, default=1000)
    one.add_argument("--seconds", type=float, default=5.0, help="of a clip")
    one.add_argument("--long", type=float, default=3.0, help="hours of the long file")
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--network-windows", type=int, default=2048)
    two = commands.choices["memory"]
    two.add_argument("--counts", type=int, nargs=2, default=(500, 5000))
    two.add_argument("--seconds", type=float, default=2.0, help="of a clip")
    inner = commands.add_parser("memory-of")
    inner.add_argument("folder", type=Path)
    inner.add_argument("count", type=int)
    inner.add_argument("kind")
    inner.add_argument("--workers", type=int)
    inner.add_argument("--batch-size", type=int)
    args = parser.parse_args()
    if args.command == "memory-of":
        memory_of(args.folder, args.count, Way(args.kind, args.workers, args.kind == "processes"), args.batch_size)
        return
    print_machine()
    if args.quick:
        if args.command == "speed":
            args.files, args.long, args.rounds, args.network_windows = 200, 0.05, 1, 512
        else:
            args.counts = (50, 500)
    speed(args) if args.command == "speed" else memory(args)


if __name__ == "__main__":
    main()
