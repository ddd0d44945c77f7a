"""Streams: equality with the whole under random cuttings, a day of sound, and the time from a window to its embedding.

    python benchmarks/stream.py cuttings --weights FOLDER [--count 1000]
    python benchmarks/stream.py day --weights FOLDER [--rate 48000] [--hours 24]
    python benchmarks/stream.py latency --weights FOLDER [--windows 300]

`cuttings`: sound of random level is cut into chunks from 1 sample to 10 s, each cutting with a scale of its own, and
every fourth time the stream is saved and restored in between. Rates and numbers of channels take turns. `day`: feeds
hours of sound as fast as it goes, with a hop of 60 s, and watches memory and times. `latency`: from pushing the chunk
(10 ms) that completes a window to having its embedding, with one stream and with 32 whose windows end together.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from vggish_pt import VGGish, push_many
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.streaming import StreamingLogMel

RATES = (16_000, 8_000, 22_050, 44_100, 48_000, 96_000)


def sound(rng: np.random.Generator, channels: int, length: int) -> np.ndarray:
    """Noise whose level changes every 1,000 samples: (channels, length) float32."""
    level = np.repeat(10 ** rng.uniform(-4, -0.5, length // 1000 + 1), 1000)[:length]
    return (rng.standard_normal((channels, length)) * level).astype(np.float32)


def cut(rng: np.random.Generator, samples: np.ndarray, rate: int) -> list[np.ndarray]:
    """Chunks from 1 sample to 10 s."""
    sizes = np.exp(rng.uniform(0, rng.uniform(1, np.log(10 * rate)), 3000)).astype(int)
    ends = np.cumsum(sizes)
    return np.split(samples, ends[ends < samples.shape[1]], axis=1)


def gather(parts: list[Embeddings]) -> Embeddings:
    return Embeddings(*(torch.cat([getattr(part, field) for part in parts]) for field in ("values", "start", "end")))


def cuttings(model: VGGish, count: int) -> None:
    """Largest differences from ``embed`` of the whole."""
    rng = np.random.default_rng(7)
    print("| rate | cuttings | chunks | log-mel | embedding | embedding, saved and restored | times |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for rate in RATES:
        worst = {"log-mel": 0.0, "plain": 0.0, "restored": 0.0}
        chunks_seen, same_times, rounds = 0, True, count // len(RATES) + (count % len(RATES) > RATES.index(rate))
        for number in range(rounds):
            if number % 20 == 0:
                samples = sound(rng, number // 20 % 3 + 1, int(rate * rng.uniform(2, 12)))
                whole = model.embed(samples, sample_rate=rate, pad="tail")
                log_mel = LogMel()(torch.from_numpy(samples.astype(float).mean(axis=0)))
            stream = model.stream(rate, pad="tail")
            examples = StreamingLogMel(LogMel(), pad="drop")
            parts, windows, restored = [], [], number % 4 == 3
            pieces = cut(rng, samples, rate)
            chunks_seen += len(pieces)
            saves = set(rng.integers(0, len(pieces), 5).tolist()) if restored else set()
            for i, piece in enumerate(pieces):
                parts.append(stream.push(piece))
                if rate == 16_000:
                    windows.append(examples.push(piece.astype(float).mean(axis=0)))
                if i in saves:
                    stream = model.stream(rate, pad="tail", state=stream.state())
            result = gather([*parts, stream.flush()])
            same_times &= torch.equal(result.start, whole.start) and torch.equal(result.end, whole.end)
            difference = float((result.values - whole.values).abs().max())
            worst["restored" if restored else "plain"] = max(worst["restored" if restored else "plain"], difference)
            if windows:
                worst["log-mel"] = max(worst["log-mel"], float((torch.cat(windows) - log_mel).abs().max()))
        mel = f"{worst['log-mel']:.1e}" if rate == 16_000 else ""
        print(
            f"| {rate} | {rounds} | {chunks_seen} | {mel} | {worst['plain']:.1e} | {worst['restored']:.1e} | "
            f"{'equal' if same_times else 'DIFFERENT'} |",
            flush=True,
        )


def resident() -> float:
    """MB of memory in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def day(model: VGGish, rate: int, hours: float) -> None:
    """Memory and times over hours of sound."""
    rng = np.random.default_rng(8)
    block = sound(rng, 1, rate * 61)[0]
    stream = model.stream(rate, hop=60.0)
    last, received, exact = -1, 0, True
    begun = time.perf_counter()
    print("| hours | windows | last start | memory, MB | state, kB | times real time |")
    print("| --- | --- | --- | --- | --- | --- |")
    marks = [hours * share for share in (1 / 24, 0.25, 0.5, 0.75, 1)]
    while marks:
        offset = int(rng.integers(0, rate // 2))
        chunk = block[offset : offset + int(rng.integers(1, 60 * rate))]
        chunk = chunk[: int(hours * 3600 * rate) - received]
        received += len(chunk)
        result = stream.push(chunk)
        for start, end in zip(result.start.tolist(), result.end.tolist(), strict=True):
            last += 1
            exact &= start == last * 60 and end == last * 60 + 0.975
        if received >= marks[0] * 3600 * rate:
            seconds = time.perf_counter() - begun
            state = sum(np.asarray(value).nbytes for value in stream.state().values()) / 1e3
            print(
                f"| {marks.pop(0):g} | {last + 1} | {last * 60} | {resident():.0f} | {state:.0f} | "
                f"{received / rate / seconds:.0f} |",
                flush=True,
            )
    assert stream.received == received
    print(f"\nTimes of all windows exact: {exact}. Samples: {received}.")


def latency(model: VGGish, windows: int) -> None:
    """Seconds from a window's last sample to its embedding."""
    rng = np.random.default_rng(9)
    print("| streams | windows | median, ms | 99th percentile, ms |")
    print("| --- | --- | --- | --- |")
    for count in (1, 32):
        streams = [model.stream(16_000) for _ in range(count)]
        chunks = [rng.standard_normal(160) * 0.1 for _ in streams]
        for one in streams:
            one.push(np.zeros(240))  # so that windows end with a chunk
        times = []
        while len(times) < windows // (1 if count == 1 else 8):
            begun = time.perf_counter()
            results = push_many(zip(streams, chunks, strict=True))
            seconds = time.perf_counter() - begun
            if len(results[0]):
                times.append(seconds)
        times = sorted(times[3:])  # the first ones warm up
        print(
            f"| {count} | {len(times) * count} | {1e3 * np.median(times):.1f} | {1e3 * np.quantile(times, 0.99):.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["cuttings", "day", "latency"])
    parser.add_argument("--weights", default="audioset")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=48_000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--threads", type=int, help="of torch; left out: its default")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = VGGish.from_pretrained(args.weights)
    if args.what == "cuttings":
        cuttings(model, args.count)
    elif args.what == "day":
        day(model, args.rate, args.hours)
    else:
        latency(model, args.windows)


if __name__ == "__main__":
    main()
