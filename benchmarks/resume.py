"""A run that is killed again and again, and one that is not: do they give the same?

Thousands of short clips with broken files of ten kinds among them, all in one manifest, go through ``vggish-pt embed``
into a folder; then again into another folder, where the process is killed (SIGKILL) at random moments and the same
command started anew. Afterwards the folders are compared row by row. The exit code says whether all was as it should.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile
from common import find_clips, print_machine, print_table

from vggish_pt.bench import generated_sound

RATE = 16_000
MAX_DIFFERENCE = 2e-5  # windows are computed in other batches after a resumption, and sums in another order


def cut(recording: np.ndarray, rate: int, number: int, seconds: float) -> np.ndarray:
    """A piece of a recording, with its number in it, so that no two are the same."""
    length = round(seconds * rate)
    start = number * 7919 % max(1, len(recording) - length)
    piece = recording[start : start + length].copy()
    piece[:32] = [0.5 if number >> bit & 1 else -0.5 for bit in range(32)]
    return piece


def write_clips(folder: Path, recordings: list[str], count: int, seconds: float) -> Iterator[Path]:
    sources = [soundfile.read(name, dtype="float32", always_2d=True) for name in recordings]
    sources = [(samples[:, 0], rate) for samples, rate in sources]
    if not sources:
        sources = [(generated_sound(10, seed=seed)[:, 0], 44_100) for seed in range(4)]
    for number in range(count):
        samples, rate = sources[number % len(sources)]
        path = folder / f"clip{number:05d}.wav"
        soundfile.write(path, cut(samples, rate, number, seconds), rate, subtype="PCM_16")
        yield path


def _cut_off(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE, np.float32), RATE)
    path.write_bytes(path.read_bytes()[:RATE])


def _no_channels(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE, np.float32), RATE)
    data = bytearray(path.read_bytes())
    data[22:24] = b"\0\0"
    path.write_bytes(data)


def _not_a_number(path: Path) -> None:
    samples = np.zeros(RATE, np.float32)
    samples[RATE // 2] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "cut off": _cut_off,
    "text": lambda path: path.write_text("no sound at all\n" * 50),
    "no channels": _no_channels,
    "no samples": lambda path: soundfile.write(path, np.zeros(0, np.float32), RATE),
    "not a number": _not_a_number,
    "a folder": lambda path: path.mkdir(),
    "random bytes": lambda path: path.write_bytes(random.Random(path.name).randbytes(5000)),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "missing": lambda _: None,
}


def make_inputs(folder: Path, args: argparse.Namespace) -> tuple[Path, set[str]]:
    """Returns a manifest, and the paths of the broken files."""
    folder.mkdir()
    recordings = find_clips(args.audio, 100) if args.audio else []
    paths = list(write_clips(folder, recordings, args.clips - args.broken, args.seconds))
    broken = []
    for number in range(args.broken):
        kind = list(BROKEN)[number % len(BROKEN)]
        path = folder / f"{kind.replace(' ', '-')}{number:03d}.wav"
        BROKEN[kind](path)
        broken.append(path)
    everything = [*paths, *broken]
    random.Random(0).shuffle(everything)
    manifest = folder.parent / "manifest.csv"
    with manifest.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        table.writerows([path.relative_to(folder.parent), path.name[:3]] for path in everything)
    return manifest, {str(path.relative_to(folder.parent)) for path in broken}


def command(manifest: Path, out: Path, args: argparse.Namespace) -> list[str]:
    main = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
    options = ["--weights", args.weights, "--workers", args.workers, "--checkpoint", args.checkpoint]
    return [sys.executable, "-c", main, "embed", str(manifest), "--out", str(out), *map(str, options)]


def run_killed(
    manifest: Path, out: Path, args: argparse.Namespace, startup: float, work: float
) -> tuple[int, str, int]:
    """Returns the last exit code, all that went to standard error, and how often the process was killed."""
    generator = random.Random(args.seed)
    kills, errors = 0, b""
    while True:
        process = subprocess.Popen(command(manifest, out, args), stderr=subprocess.PIPE, cwd=manifest.parent)
        moment = generator.uniform(0, startup + 1.5 * work / args.kills) if kills < args.kills else None
        try:
            errors += process.communicate(timeout=moment)[1]
            return process.returncode, errors.decode(), kills
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)  # the process alone: what it started must find its own end
            kills += 1
            process.wait()
            assert process.stderr is not None
            errors += process.stderr.read()


def read(out: Path) -> tuple[dict[tuple[str, int], tuple[object, ...]], np.ndarray, int, dict[str, str]]:
    """Rows by path and window, their embeddings in that order, how many are there twice, and the errors."""
    table = [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    rows = {(row["path"], row["window"]): row for row in table}
    keys = sorted(rows)
    facts = {key: tuple(value for name, value in rows[key].items() if name != "embedding") for key in keys}
    embeddings = np.array([rows[key]["embedding"] for key in keys], np.float32)
    errors = {row["path"]: row["reason"] for row in pq.read_table(out / "_errors.parquet").to_pylist()}
    return facts, embeddings, len(table) - len(rows), errors


def seconds_of_work(out: Path) -> float:
    return json.loads((out / "_run.json").read_text())["timing"]["elapsed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, help="folder of recordings to cut; left out: generated sound")
    parser.add_argument("--weights", default="synthetic")
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--broken", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--checkpoint", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if args.machine:
        print_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, broken = make_inputs(folder / "clips", args)
        whole, killed = folder / "whole", folder / "killed"
        began = time.monotonic()
        undisturbed = subprocess.run(command(manifest, whole, args), stderr=subprocess.PIPE, cwd=folder)
        took = time.monotonic() - began
        work = seconds_of_work(whole)
        code, said, kills = run_killed(manifest, killed, args, took - work, work)
        expected, wanted, _, reasons = read(whole)
        facts, embeddings, twice, errors = read(killed)
        same = facts == expected and embeddings.shape == wanted.shape
        difference = float(np.abs(embeddings - wanted).max()) if same else float("nan")
        equal = float((embeddings == wanted).all(axis=1).mean()) if same else 0.0
        named = sum(any(path in line for line in said.splitlines()) for path in broken)
        again = subprocess.run(command(manifest, killed, args), stderr=subprocess.PIPE, cwd=folder)
        checks = {
            f"killed {args.kills} times": kills == args.kills,
            "exit code 3, 3 and 3": (undisturbed.returncode, code, again.returncode) == (3, 3, 3),
            "the same rows, but for embeddings": same,
            "none twice": twice == 0,
            "none lost": len({path for path, _ in facts}) == args.clips - args.broken,
            f"embeddings within {MAX_DIFFERENCE}": difference < MAX_DIFFERENCE,
            "the same errors, with the same reasons": errors == reasons and set(errors) == broken,
            "each named on standard error": named == len(broken),
            "nothing left to do afterwards": b"nothing left to do" in again.stderr,
        }
        print_table(
            ["", "undisturbed", "killed"],
            [
                ("seconds of work", f"{work:.0f}", f"{seconds_of_work(killed):.0f}"),
                ("times killed", 0, kills),
                ("parts", *(len(list(out.glob("part-*"))) for out in (whole, killed))),
                ("rows", len(expected), len(facts)),
                ("rows twice", 0, twice),
                ("errors", len(reasons), len(errors)),
                ("exit code", undisturbed.returncode, code),
                ("largest difference of an embedding", "", f"{difference:.1e}"),
                ("rows equal bit for bit", "", f"{equal:.1%}"),
            ],
        )
        kinds = Counter(errors.values())
        print_table(["files", "reason"], [(count, reason) for reason, count in kinds.most_common()])
        print_table(["check", ""], [(check, "yes" if good else "NO") for check, good in checks.items()])
        if not all(checks.values()):
            print(said[-3000:], file=sys.stderr)
        return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
